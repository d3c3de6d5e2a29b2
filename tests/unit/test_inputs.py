"""Files that others wrote: nothing is waited for, and nothing is read that is no file."""

import os
from pathlib import Path

import pytest

from d3po.errors import FormatError
from d3po.inputs import read_regular


def test_a_file_is_read_up_to_a_size(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1234")
    assert read_regular(tmp_path / "a", "here", largest=4) == b"1234"
    with pytest.raises(FormatError, match=r"^here: .*a has more than 3 bytes$"):
        read_regular(tmp_path / "a", "here", largest=3)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match=r"^list\.jsonl, line 2, field chosen: cannot read .*pipe: it is a folder, a pipe or a device"):
        read_regular(tmp_path / "pipe", "list.jsonl, line 2, field chosen")


def test_folders_and_devices_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(FormatError, match="cannot read"):
            read_regular(path, "here")


def test_what_is_not_there_or_is_no_name_is_refused(tmp_path: Path) -> None:
    for name in ("gone", "a\0b", "x" * 5000):
        with pytest.raises(FormatError, match=r"^here: cannot read"):
            read_regular(tmp_path / name, "here")
