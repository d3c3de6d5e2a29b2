"""Reads the files of pictures, from a folder or any file system that fsspec supports. Clients name pictures by id, never by path."""

import hashlib
import io
import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import fsspec
from fastapi import HTTPException, Response
from fsspec.implementations.local import LocalFileSystem
from PIL import Image, UnidentifiedImageError
from starlette.datastructures import Headers

from d3po.errors import ConfigError, StorageError
from d3po.store import PictureStore

log = logging.getLogger(__name__)

MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
"""The formats that are served and their media types. The format is read from the bytes, not the name; none of these can contain a script."""
PICTURE: dict[int | str, dict[str, Any]] = {200: {"content": {"image/*": {}}}}
"""The OpenAPI description of a response with a picture."""
CACHE_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class ServedPicture:
    """The content of a picture's file, as it is sent to browsers."""

    content: bytes
    media_type: str
    sha256: str
    width: int
    height: int


class PictureReader:
    """Reads pictures and checks their bytes against the recorded hash. Recently used pictures are cached in memory."""

    def __init__(self, pictures: PictureStore, url: str) -> None:
        """Args:
            pictures: the table that gives paths by id.
            url: the folder or fsspec URL that the paths are relative to.

        Raises:
            ConfigError: fsspec does not support such a URL.
        """
        self._pictures = pictures
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, ServedPicture] = OrderedDict()
        self._held = 0
        try:
            self._files, self._root = _place(url)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"--images {url} cannot be opened: {error}") from error

    def read(self, image_id: int) -> ServedPicture | None:
        """Read a picture. None if there is no such picture, or if its file is missing or not what was recorded. Blocks.

        Raises:
            StorageError: the database or the file system cannot be used.
        """
        with self._lock:
            if found := self._cache.get(image_id):
                self._cache.move_to_end(image_id)
                return found
        record = self._pictures.picture(image_id)
        if record is None:
            return None
        path, sha256 = record
        picture = self._load(path, sha256)
        if picture is not None:
            self._keep(image_id, picture)
        return picture

    def _load(self, path: str, sha256: str) -> ServedPicture | None:
        if not is_inside(path):
            log.error("the recorded path %r is outside the picture folder; it is not served", path)
            return None
        try:
            content = self._files.cat_file(f"{self._root.rstrip('/')}/{path}")
        except FileNotFoundError:
            log.error("picture %r is missing under %s", path, self._root)
            return None
        except OSError as error:
            raise StorageError(f"the pictures cannot be read: {error.strerror or type(error).__name__}; try again shortly") from error
        if hashlib.sha256(content).hexdigest() != sha256:
            log.error("picture %r differs from the recorded one; it is not served", path)
            return None
        return _described(content, sha256)

    def _keep(self, image_id: int, picture: ServedPicture) -> None:
        with self._lock:
            if image_id not in self._cache:
                self._held += len(picture.content)
            self._cache[image_id] = picture
            while self._held > CACHE_BYTES and len(self._cache) > 1:
                self._held -= len(self._cache.popitem(last=False)[1].content)


def _place(url: str) -> tuple[Any, str]:
    """The file system and the folder that a path or URL names. An existing path is used as it is, even if it looks like a URL; file:// is decoded once."""
    folder = Path(url2pathname(urlsplit(url).path) if url.startswith("file://") else url)
    return (LocalFileSystem(), str(folder.resolve())) if folder.is_dir() else fsspec.core.url_to_fs(url)


def reply(picture: ServedPicture | None, headers: Headers) -> Response:
    """Make the response to a request for a picture. The content of its URL never changes, so browsers may cache it forever.

    Args:
        picture: the picture; None if there is none.
        headers: the headers of the request.

    Raises:
        HTTPException: there is no picture.
    """
    if picture is None:
        raise HTTPException(404, "there is no such picture")
    kept = {"etag": f'"{picture.sha256}"', "cache-control": "private, max-age=31536000, immutable"}
    if kept["etag"] in headers.get("if-none-match", ""):
        return Response(status_code=304, headers=kept)
    return Response(picture.content, media_type=picture.media_type, headers=kept)


def is_inside(path: str) -> bool:
    """Whether a recorded path stays inside the folder that it is relative to."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and "\\" not in path and "\0" not in path and "://" not in path


def _described(content: bytes, sha256: str) -> ServedPicture | None:
    try:
        with Image.open(io.BytesIO(content), formats=list(MEDIA_TYPES)) as image:
            width, height = image.size
            media_type = MEDIA_TYPES[image.format or ""]
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, KeyError):
        return None
    return ServedPicture(content=content, media_type=media_type, sha256=sha256, width=width, height=height)
