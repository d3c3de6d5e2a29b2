"""Whole files or none: write to a temporary name, fsync, rename."""

import errno
import hashlib
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from d3po.errors import StorageError


@contextmanager
def atomic_file(path: Path) -> Generator[BinaryIO, None, None]:
    """A binary file that appears under `path` complete, when the block ends without an error.

    Raises:
        StorageError: the disk is full or not writable; nothing is left under `path` that was not there before.
    """
    temporary = path.with_name(f".{path.name}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise StorageError(
                f"cannot write {path}: {error.strerror}; free some space or mend the permissions and run the same command again"
            ) from error
        raise


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a whole file at once; see `atomic_file`."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


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
