"""Whole files or none, whatever happens to the disk or the process."""

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest

from d3po.errors import StorageError
from d3po.storage.files import atomic_file, sha256, write_atomically

MENDABLE = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


def fail_with(number: int):
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def assert_untouched(path: Path) -> None:
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("content", ["a text, ünicode too", b"\x00\xff bytes", b""])
def test_content_is_written_as_given(tmp_path: Path, content: str | bytes) -> None:
    write_atomically(tmp_path / "new" / "folder" / "file", content)
    assert (tmp_path / "new" / "folder" / "file").read_bytes() == (content.encode() if isinstance(content, str) else content)


def test_old_content_is_replaced_and_nothing_else_left(old: Path) -> None:
    write_atomically(old, b"new")
    assert old.read_bytes() == b"new"
    assert [entry.name for entry in old.parent.iterdir()] == ["file"]


def test_file_appears_only_when_it_is_complete(old: Path) -> None:
    with atomic_file(old) as file:
        file.write(b"new")
        file.flush()
        assert old.read_bytes() == b"old"
    assert old.read_bytes() == b"new"


@pytest.mark.parametrize("number", MENDABLE, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_failing_disk_leaves_the_old_content_and_says_what_to_do(
    old: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    monkeypatch.setattr(os, call, fail_with(number))
    with pytest.raises(StorageError, match=rf"cannot write {old}: {os.strerror(number)}; free some space or mend the permissions"):
        write_atomically(old, b"new")
    assert_untouched(old)


def test_disk_full_while_writing_leaves_the_old_content(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.FileIO):
        write = fail_with(errno.ENOSPC)

    monkeypatch.setattr(Path, "open", lambda path, mode: Full(path, mode.replace("b", "")))
    with pytest.raises(StorageError, match="No space left on device"):
        write_atomically(old, b"new")
    monkeypatch.undo()
    assert_untouched(old)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux' always full device")
def test_device_that_is_truly_full_leaves_the_old_content(old: Path) -> None:
    old.with_name(".file.writing").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="No space left on device"):
        write_atomically(old, b"new")
    assert_untouched(old)


def test_disk_that_refuses_even_the_cleaning_up_is_still_named(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only file system answers every call so, unlink of a file that is not there included."""
    monkeypatch.setattr(Path, "open", fail_with(errno.EROFS))
    monkeypatch.setattr(Path, "unlink", fail_with(errno.EROFS))
    with pytest.raises(StorageError, match="Read-only file system"):
        write_atomically(old, b"new")
    monkeypatch.undo()
    assert_untouched(old)


def test_mistake_of_another_kind_is_not_called_a_disk_error(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fail_with(errno.EBADF))
    with pytest.raises(OSError, match="Bad file descriptor"):
        write_atomically(old, b"new")
    assert_untouched(old)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_writer_that_fails_leaves_the_old_content(old: Path, error: type[BaseException]) -> None:
    def write_half() -> None:
        with atomic_file(old) as file:
            file.write(b"ne")
            raise error

    with pytest.raises(error):
        write_half()
    assert_untouched(old)


def test_leftover_of_a_killed_writer_is_written_over(old: Path) -> None:
    old.with_name(".file.writing").write_bytes(b"half a file, longer than what comes now")
    write_atomically(old, b"new")
    assert old.read_bytes() == b"new"
    assert [entry.name for entry in old.parent.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("content", "digest"),
    [
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ],
)
def test_sha256_is_the_published_one(tmp_path: Path, content: bytes, digest: str) -> None:
    """Test vectors of FIPS 180-2."""
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == digest
