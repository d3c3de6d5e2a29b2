"""Whole files or none: write to a temporary name, fsync, rename. And bytes that are those that were written."""

import hashlib
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from d3po.errors import CorruptFileError, storage_errors


@contextmanager
def atomic_file(path: Path) -> Generator[BinaryIO, None, None]:
    """A binary file that appears under `path` complete, when the block ends without an error.

    Raises:
        StorageError: the disk is full or not writable; nothing is left under `path` that was not there before.
    """
    temporary = path.with_name(f".{path.name}.writing")
    with storage_errors(f"cannot write {path}"):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_directory(path.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a whole file at once; see `atomic_file`."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


class GrowingFile:
    """A file that grows by whole pieces: a piece that the disk has no room for is not there at all.

    Nothing is kept back in memory, so closing writes nothing.
    """

    def __init__(self, path: Path) -> None:
        """Open the file to add to it, made if it is not there.

        Raises:
            StorageError: the machine does not let it be written.
        """
        self._path = path
        with storage_errors(f"cannot write {self._path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)

    def append(self, piece: bytes) -> None:
        """Add a piece.

        Raises:
            StorageError: the disk is full or not writable; the file is as it was.
        """
        before = self._file.seek(0, os.SEEK_END)
        try:
            with storage_errors(f"cannot write {self._path}"):
                left = memoryview(piece)
                while left:
                    left = left[self._file.write(left) :]
        except BaseException:
            with suppress(OSError):
                self._file.truncate(before)
            raise

    def sync(self) -> None:
        """Bring to disk what was added.

        Raises:
            StorageError: the disk is full or fails.
        """
        with storage_errors(f"cannot write {self._path}"):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let the file go."""
        self._file.close()


def read_bytes(path: Path, *, remedy: str, checksum: str | None = None) -> bytes:
    """The bytes of a file, which are those whose SHA-256 is `checksum` if one is given.

    Raises:
        CorruptFileError: the file is gone, or its bytes are not those that were written; the message ends with `remedy`.
        StorageError: the machine does not let it be read.
    """
    with storage_errors(f"cannot read {path}"):
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise CorruptFileError(f"{path} is gone; {remedy}") from error
    if checksum is not None and hashlib.sha256(content).hexdigest() != checksum:
        raise CorruptFileError(f"{path} is not what was written: its SHA-256 is not the {checksum[:12]}... that was recorded; {remedy}")
    return content


def find_whole(directory: Path, name: str) -> Path | None:
    """The file `NAME-HASH.safetensors` whose SHA-256 begins with the hash in its name; None if there is none, or only damaged ones."""
    return next((path for path in directory.glob(f"{name}-*.safetensors") if sha256(path).startswith(path.stem.rpartition("-")[2])), None)


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
