"""Pictures from elsewhere: read from inside one folder only, decoded with a pixel limit, and encoded anew, so that nothing but pixels comes in."""

import io
import struct
import warnings
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from PIL import Image, ImageOps, UnidentifiedImageError

from d3po.errors import FormatError

LARGEST = 50_000_000
"""Pixels; a 7000 x 7000 picture. A file of a few bytes may claim to hold far more."""

READABLE = ("PNG", "JPEG", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def encode_anew(content: bytes, where: str) -> bytes:
    """The same pixels as a PNG without metadata: 8 bits RGB, upright, transparency laid on white. Doing it again changes nothing.

    Raises:
        FormatError: it is no PNG, JPEG or WebP, is damaged, or has too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=READABLE) as opened:
                if opened.width * opened.height > LARGEST:
                    raise FormatError(f"{where}: the picture has {opened.width} x {opened.height} pixels; {LARGEST} are allowed in all")
                upright = ImageOps.exif_transpose(opened)
                return _png(_opaque(upright))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise FormatError(f"{where}: the picture claims to have far more than {LARGEST} pixels") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise FormatError(f"{where}: not a whole PNG, JPEG or WebP picture ({error})") from error


def read_picture(root: Path, name: object, where: str) -> bytes:
    """The bytes of a picture file that lies in the folder `root` or below it.

    Args:
        root: absolute paths and links must lead into it, too.
        name: a path relative to it, or a Label Studio address such as /data/local-files/?d=images/a.png.
        where: file, line and field, for messages.

    Raises:
        FormatError: there is no such file inside the folder.
    """
    if not isinstance(name, str) or not name.strip():
        raise FormatError(f"{where}: {name!r} is no path of a picture")
    parts = urlsplit(name)
    if parts.scheme in ("http", "https", "s3", "gs"):
        raise FormatError(f"{where}: {name[:200]} is elsewhere; download it and name the file, relative to {root}")
    local = parse_qs(parts.query)["d"][0] if parts.path.startswith("/data/local-files") and "d=" in parts.query else name
    local = unquote(local.removeprefix("file://"))
    path = (root / local).resolve()
    if not path.is_relative_to(root.resolve()):
        raise FormatError(f"{where}: {name[:200]} is not inside {root}; move the pictures there, or say by --images where they are")
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise FormatError(f"{where}: cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _opaque(picture: Image.Image) -> Image.Image:
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(white, layered).convert("RGB")
    return picture.convert("RGB")


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    clean = Image.frombytes("RGB", picture.size, picture.tobytes())
    clean.save(buffer, format="PNG")
    return buffer.getvalue()
