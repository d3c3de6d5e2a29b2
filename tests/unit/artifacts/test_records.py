"""Records on disk: what was changed, cut or lost is told, with its name and what to do."""

import json
from pathlib import Path
from typing import Any

import pytest

from d3po.artifacts.records import read_record, seal, unseal, write_record
from d3po.errors import CorruptFileError

RECORD = {"scores": [[0.1, -2.5e-7, float("inf")]], "name": "ünicode", "none": None, "kept": True, "nested": {"b": 1, "a": 2}}
REMEDY = "bring it back"


def kept(tmp_path: Path, record: dict[str, Any] = RECORD) -> Path:
    path = tmp_path / "folder" / "record.json"
    write_record(path, record)
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert read_record(kept(tmp_path), remedy=REMEDY, needs=("scores",)) == RECORD


CHANGES = [
    ("0.1", "0.2"),
    ("-2.5e-07", "2.5e-07"),
    ("true", "false"),
    ('"a": 2', '"a": 2, "c": 3'),
    ('"name"', '"game"'),
    (' "none": null,\n', ""),
]


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_one_changed_value_is_found(tmp_path: Path, before: str, after: str) -> None:
    path = kept(tmp_path)
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, after))
    with pytest.raises(CorruptFileError, match=rf"{path} is damaged or was changed: .*; {REMEDY}"):
        read_record(path, remedy=REMEDY)


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"[", b"\xff\xfe", b"\0" * 40], ids=repr)
def test_a_file_that_is_cut_names_itself(tmp_path: Path, content: bytes) -> None:
    path = kept(tmp_path)
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=rf"{path} is damaged: it is not JSON .*; {REMEDY}"):
        read_record(path, remedy=REMEDY)


@pytest.mark.parametrize("content", [b"[]", b"1", b"null"], ids=repr)
def test_json_that_is_no_record_is_damage(content: bytes) -> None:
    with pytest.raises(CorruptFileError, match="here is damaged: it holds no record"):
        unseal(content, "here", remedy=REMEDY)


def test_a_record_that_is_gone_names_itself(tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match=rf"{tmp_path / 'none.json'} is gone; {REMEDY}"):
        read_record(tmp_path / "none.json", remedy=REMEDY)


def test_a_record_from_before_there_were_hashes_is_read_as_it_is() -> None:
    assert unseal(json.dumps(RECORD).encode(), "here", remedy=REMEDY) == RECORD
    with pytest.raises(CorruptFileError, match="it lacks more, most"):
        unseal(json.dumps(RECORD).encode(), "here", remedy=REMEDY, needs=("name", "more", "most"))


def test_the_order_of_keys_and_the_spaces_between_them_are_no_change() -> None:
    sealed = seal(RECORD)
    text = json.dumps(dict(sorted(sealed.items(), reverse=True)), indent=7)
    assert unseal(text.encode(), "here", remedy=REMEDY) == RECORD
