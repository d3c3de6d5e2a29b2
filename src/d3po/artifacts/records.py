"""Small records on disk: JSON objects that contain the SHA-256 of their other content, so that a change is detected.

A record without a hash was written before records had one; it is read without a check.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from d3po.artifacts.files import read_bytes, write_atomically
from d3po.errors import CorruptFileError

HASH = "sha256"
"""The key of a record's hash."""


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """Add its hash to a record."""
    return {**record, HASH: _digest(record)}


def unseal(content: bytes, where: str, *, remedy: str, needs: Iterable[str] = ()) -> dict[str, Any]:
    """Parse a record, verify its hash, and return it without the hash.

    Args:
        content: the record as JSON text.
        where: the file, and the line if it has several records; for messages.
        remedy: what to do about a damaged record; for messages.
        needs: keys that the record must have.

    Raises:
        CorruptFileError: the text is not a JSON object, does not match its hash, or lacks a key.
    """
    try:
        record = json.loads(content)
    except ValueError as error:
        raise CorruptFileError(f"{where} is damaged: it is not JSON ({error}); {remedy}") from error
    if not isinstance(record, dict):
        raise CorruptFileError(f"{where} is damaged: it holds no record; {remedy}")
    written = record.pop(HASH, None)
    if written not in (None, _digest(record)):
        raise CorruptFileError(f"{where} is damaged or was changed: what it says has not the SHA-256 that was written with it; {remedy}")
    if missing := [key for key in needs if key not in record]:
        raise CorruptFileError(f"{where} is damaged: it lacks {', '.join(missing)}; {remedy}")
    return record


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record, with its hash, as a file; the file is written whole or not at all."""
    write_atomically(path, json.dumps(seal(record), indent=1))


def read_record(path: Path, *, remedy: str, needs: Iterable[str] = ()) -> dict[str, Any]:
    """Read and verify the record in a file; see `unseal`.

    Raises:
        CorruptFileError: the file is gone or damaged.
        StorageError: the file cannot be read.
    """
    return unseal(read_bytes(path, remedy=remedy), str(path), remedy=remedy, needs=needs)


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
