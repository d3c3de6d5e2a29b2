"""The key that signs invitations: a small file that only its owner may read, checked each time it is read."""

import os
import re
import secrets
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from d3po.errors import StorageError

KEY_BYTES = 32
KEY = re.compile(rb"[A-Za-z0-9+/_=-]{43,1024}\s*")
"""256 bits take 43 characters of base64; a user may put a longer key there."""


def signing_key(path: Path) -> str:
    """Read the key from the file, which is made if it does not exist. If two processes make it at once, both get the same key.

    Raises:
        StorageError: the file cannot be read or made, is a link, may be read by others, or contains no valid key.
    """
    try:
        with suppress(FileNotFoundError):
            return _read(path, path.lstat())
        _make(path)
        return _read(path, path.lstat())
    except OSError as error:
        raise StorageError(
            f"the key file {path} cannot be read or made: {error.strerror}; check that its folder exists and is writable"
        ) from error


def _read(path: Path, found: os.stat_result) -> str:
    if not stat.S_ISREG(found.st_mode):
        what = "a link" if stat.S_ISLNK(found.st_mode) else "no file"
        raise StorageError(f"the key file {path} is {what}; put the key itself there, or remove it: a new one is made")
    content = path.read_bytes()
    if not KEY.fullmatch(content):
        raise StorageError(
            f"the key file {path} holds no key ({len(content)} bytes; a key is one line of 43 letters and digits or more): bring it back "
            "from a copy, or remove it: a new one is made, and invitations must be sent again"
        )
    if os.name == "posix" and found.st_mode & 0o077 and _keeps_permissions(path.parent):
        raise StorageError(
            f"others than its owner may use the key file {path} (mode {stat.S_IMODE(found.st_mode):03o}): `chmod 600 {path}`, "
            "or remove it if others may have read it: a new one is made, and invitations must be sent again"
        )
    return content.decode("ascii").strip()


def _make(path: Path) -> None:
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        with suppress(FileExistsError):
            os.link(fresh, path)
    except OSError:
        fresh.replace(path)  # the file system has no hard links
    else:
        fresh.unlink()


def _keeps_permissions(folder: Path) -> bool:
    """Whether the folder's file system stores permissions at all; that of a USB stick may not."""
    with tempfile.NamedTemporaryFile(dir=folder) as probe:
        return os.fstat(probe.fileno()).st_mode & 0o077 == 0
