"""Whole files or none, whatever happens to the disk or the process."""

import errno
import hashlib
import io
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from d3po.artifacts.files import GrowingFile, atomic_file, find_whole, read_bytes, sha256, write_atomically
from d3po.artifacts.run_pictures import read_picture
from d3po.errors import CorruptFileError, StorageError

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
    with pytest.raises(StorageError, match=rf"cannot write {old}: {os.strerror(number)}; free some space or fix the permissions"):
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


def test_a_growing_file_takes_up_where_it_ended(tmp_path: Path) -> None:
    for piece in (b"one\n", b"", b"two\n"):
        with closing(GrowingFile(tmp_path / "new" / "log")) as file:
            file.append(piece)
            assert (tmp_path / "new" / "log").read_bytes().endswith(piece), "nothing is kept back in memory"
            file.sync()
    assert (tmp_path / "new" / "log").read_bytes() == b"one\ntwo\n"


class Filling(io.FileIO):
    """A disk with room for three bytes more, that is interrupted or full after them."""

    then: BaseException = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    room = 3

    def write(self, data: Any) -> int:
        if not self.room:
            raise self.then
        written = super().write(data[: self.room])
        self.room -= written
        return written


@pytest.mark.parametrize("then", [Filling.then, KeyboardInterrupt()], ids=lambda error: type(error).__name__)
def test_a_piece_that_finds_no_room_is_not_there_at_all(old: Path, monkeypatch: pytest.MonkeyPatch, then: BaseException) -> None:
    monkeypatch.setattr(Filling, "then", then)
    monkeypatch.setattr(Path, "open", lambda path, mode, buffering: Filling(path, mode.replace("b", "")))
    with closing(GrowingFile(old)) as file, pytest.raises(StorageError if isinstance(then, OSError) else KeyboardInterrupt) as error:
        file.append(b"a whole line\n")
    assert isinstance(then, KeyboardInterrupt) or f"cannot write {old}: No space left on device; free some space" in str(error.value)
    monkeypatch.undo()
    assert_untouched(old)


def test_a_piece_may_be_written_in_parts(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(io.FileIO):
        def write(self, data: Any) -> int:
            return super().write(data[:2])

    monkeypatch.setattr(Path, "open", lambda path, mode, buffering: Slow(path, mode.replace("b", "")))
    with closing(GrowingFile(old)) as file:
        file.append(b" and new")
    monkeypatch.undo()
    assert old.read_bytes() == b"old and new"


@pytest.mark.parametrize("number", MENDABLE, ids=errno.errorcode.get)
def test_a_growing_file_that_cannot_be_opened_or_synced_is_one_line(old: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    with closing(GrowingFile(old)) as file:
        monkeypatch.setattr(os, "fsync", fail_with(number))
        with pytest.raises(StorageError, match=rf"cannot write {old}: {os.strerror(number)}"):
            file.sync()
    monkeypatch.setattr(Path, "open", fail_with(number))
    with pytest.raises(StorageError, match=rf"cannot write {old}: {os.strerror(number)}"):
        GrowingFile(old)


def test_bytes_are_those_that_were_written_or_the_file_names_itself(old: Path) -> None:
    assert read_bytes(old, remedy="mend it") == b"old"
    assert read_bytes(old, remedy="mend it", checksum=sha256(old)) == b"old"
    with pytest.raises(CorruptFileError, match=rf"{old} is not what was written: .* 0123456789ab\.\.\. .*; mend it"):
        read_bytes(old, remedy="mend it", checksum="0123456789abcdef")
    old.unlink()
    with pytest.raises(CorruptFileError, match=rf"{old} is gone; mend it"):
        read_bytes(old, remedy="mend it")
    with pytest.raises(StorageError, match=rf"cannot read {old.parent}: Is a directory"):
        read_bytes(old.parent, remedy="mend it")


def test_a_file_named_by_its_hash_is_found_if_it_is_whole(tmp_path: Path) -> None:
    whole = tmp_path / f"key-{hashlib.sha256(b'abc').hexdigest()[:16]}.safetensors"
    (tmp_path / "key-0123456789abcdef.safetensors").write_bytes(b"abc")
    assert find_whole(tmp_path, "key") is None
    whole.write_bytes(b"abc")
    assert find_whole(tmp_path, "key") == whole
    assert find_whole(tmp_path, "other") is None
    assert find_whole(tmp_path / "nowhere", "key") is None


def test_a_picture_is_decoded_only_if_it_is_the_one_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.new("RGB", (3, 2), "red").save(path)
    written = sha256(path)
    assert read_picture(path, remedy="", checksum=written).getpixel((2, 1)) == (255, 0, 0)
    Image.new("RGB", (3, 2), "blue").save(path)
    with pytest.raises(CorruptFileError, match=f"{path} is not what was written"):
        read_picture(path, remedy="", checksum=written)
    whole = path.read_bytes()
    for cut in (b"", whole[:20], whole[: len(whole) // 2]):
        path.write_bytes(cut)
        with pytest.raises(CorruptFileError, match=rf"{path} is damaged: it is no picture that can be read; make it anew"):
            read_picture(path, remedy="make it anew")
