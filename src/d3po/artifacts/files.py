"""Files that are written whole or not at all (temporary name, fsync, rename), and read only if their bytes are those that were written."""

import hashlib
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from d3po.errors import CorruptFileError, storage_errors


@contextmanager
def atomic_file(path: Path) -> Generator[BinaryIO, None, None]:
    """Open a binary file that appears under `path`, complete, when the block ends without an error.

    Raises:
        StorageError: the disk is full or not writable; what was under `path` before is unchanged.
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
    """A file that grows by whole pieces: a piece for which the disk has no room is removed again.

    Nothing is buffered, so closing writes nothing.
    """

    def __init__(self, path: Path) -> None:
        """Open the file for appending, and make it if it does not exist.

        Raises:
            StorageError: the file cannot be opened for writing.
        """
        self._path = path
        with storage_errors(f"cannot write {self._path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)

    def append(self, piece: bytes) -> None:
        """Append a piece.

        Raises:
            StorageError: the disk is full or not writable; the file is unchanged.
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
        """Flush what was appended to disk (fsync).

        Raises:
            StorageError: the disk is full or fails.
        """
        with storage_errors(f"cannot write {self._path}"):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_bytes(path: Path, *, remedy: str, checksum: str | None = None) -> bytes:
    """Read a file's bytes, and check them against the SHA-256 `checksum` if one is given.

    Raises:
        CorruptFileError: the file is gone, or its bytes are not those that were written; the message ends with `remedy`.
        StorageError: the file cannot be read.
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
    """Find the file `NAME-HASH.safetensors` whose SHA-256 begins with the hash in its name; None if there is none, or only damaged ones."""
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
