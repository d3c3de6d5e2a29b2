"""Reads files that other programs or people wrote: only regular files, without blocking, and only up to a size."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from d3po.errors import FormatError

LARGEST = 512 * 1024 * 1024
"""Bytes. A picture of 50 million pixels at 16 bits a channel needs less."""


def open_regular(path: Path, where: str) -> BinaryIO:
    """Open a regular file to read its bytes. Named pipes and devices are refused, because reading them could block or never end.

    Args:
        path: the file; symbolic links are followed.
        where: where the path is named, for messages: a file, line and field.

    Raises:
        FormatError: it cannot be opened, or is not a regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise FormatError(f"{where}: cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise FormatError(f"{where}: cannot read {path}: it is a folder, a pipe or a device, not a file")


def read_regular(path: Path, where: str, *, largest: int = LARGEST) -> bytes:
    """Read the bytes of a regular file; see `open_regular`.

    Raises:
        FormatError: it cannot be read, is not a regular file, or has more than `largest` bytes.
    """
    with open_regular(path, where) as file:
        try:
            content = file.read(largest + 1)
        except OSError as error:
            raise FormatError(f"{where}: cannot read {path}: {error.strerror}") from error
    if len(content) > largest:
        raise FormatError(f"{where}: {path} has more than {largest} bytes")
    return content
