"""Finding the file that a data set names, by a path or by an address that stands for a file on this machine. Only files inside one folder are found.

A path is taken literally; only addresses are decoded, once:

    images/a%20b.png                                the file with exactly this name
    file:///data/set/images/a%20b.png               the file "a b.png"
    /data/local-files/?d=images/a%20b.png           Label Studio's local storage: "a b.png" below the document root; also behind http://HOST
    /data/upload/1/3f2a91c0-a.png                   Label Studio's uploads: upload/1/3f2a91c0-a.png in its media folder, a file of that last name,
                                                    or the file that was uploaded, a.png
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, unquote_plus, urlsplit
from urllib.request import url2pathname

from d3po.errors import FormatError

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|file:", re.IGNORECASE)
LOCAL_FILES, UPLOADS = "/data/local-files", "/data/upload/"
UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")
"""The name that Label Studio gives an uploaded file: eight hexadecimal digits before the original name."""


@dataclass(frozen=True, kw_only=True)
class LocatedFile:
    """A file that was found."""

    path: Path
    original: bool = False
    """Whether it was found by its name before Label Studio renamed it, which several uploads may share."""


def locate(root: Path, name: object, where: str) -> LocatedFile:
    """Find the file that a name stands for, in the folder `root` or below it.

    Args:
        root: the folder; absolute paths and links must lead into it too.
        name: a path relative to the folder, or an address; see the module docstring.
        where: file, line and field, for messages.

    Raises:
        FormatError: there is no such file inside the folder.
    """
    if not isinstance(name, str) or not name.strip():
        raise FormatError(f"{where}: {name!r} is no path of a picture")
    said, inside = _shown(name), False
    try:
        home = root.resolve()
        for way in _ways(name, where, root):
            path = (root / way).resolve()
            if path.is_relative_to(home):
                inside = True
                if path.exists():
                    original = UPLOADED.fullmatch(name.rsplit("/", 1)[-1]) is not None and not UPLOADED.fullmatch(Path(way).name)
                    return LocatedFile(path=path, original=original)
    except (OSError, ValueError, RuntimeError) as error:
        raise FormatError(f"{where}: {said} is no path of a file here: {getattr(error, 'strerror', None) or error}") from error
    if not inside:
        raise FormatError(f"{where}: {said} is not inside {root}; move the pictures there, or say by --images where they are")
    raise FormatError(f"{where}: cannot read {said}: there is no such file in {root}; say by --images where the pictures are")


def _ways(name: str, where: str, root: Path) -> list[str]:
    """The paths that a name may stand for, the most likely first."""
    if ADDRESS.match(name):
        return _ways_of_address(name, where, root)
    ways = [name]
    if name.startswith((LOCAL_FILES, UPLOADS)):
        ways += _ways_of_label_studio(urlsplit(name), where) or []
    if "\\" in name:
        ways.append(name.replace("\\", "/"))  # a relative path as Windows writes it
    return ways


def _ways_of_address(name: str, where: str, root: Path) -> list[str]:
    try:
        parts = urlsplit(name)
    except ValueError as error:
        raise FormatError(f"{where}: {_shown(name)} is no address: {error}") from error
    if parts.scheme == "file" and parts.netloc.lower() in ("", "localhost"):
        return [url2pathname(parts.path)]
    ways = _ways_of_label_studio(parts, where) if parts.scheme in ("http", "https") else None
    if ways is None:
        raise FormatError(f"{where}: {_shown(name)} is elsewhere; download it and name the file, relative to {root}")
    return ways


def _ways_of_label_studio(parts: SplitResult, where: str) -> list[str] | None:
    """The paths that an address of a Label Studio server may stand for; None if it is not such an address."""
    if parts.path.startswith(LOCAL_FILES):
        found = re.search(r"(?:^|&)d=([^&]*)", parts.query)
        ways = [] if found is None else [decoded(found[1]).lstrip("/") for decoded in (unquote, unquote_plus)]
        if not any(way.strip() for way in ways):
            raise FormatError(f"{where}: {_shown(parts.geturl())} names no file; Label Studio's addresses of local files end in ?d=PATH")
        return ways
    if parts.path.startswith(UPLOADS):
        below = unquote(parts.path.removeprefix(UPLOADS))
        last = below.rsplit("/", 1)[-1]
        original = UPLOADED.fullmatch(last)
        return [f"upload/{below}", f"media/upload/{below}", below, last, *([original[1]] if original else [])]
    return None


def _shown(name: str) -> str:
    """A name as a message shows it: on one line, and shortened if it is long."""
    shown = name if name.isprintable() else ascii(name)
    return shown if len(shown) <= 200 else f"{shown[:197]}..."
