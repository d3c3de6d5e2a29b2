"""Reads pictures that other programs or people made, and keeps only the pixels.

Imported pictures, pictures to inpaint and their masks are all read here: turned upright, eight bits a channel, transparency on white.
"""

import io
import re
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from d3po.errors import FormatError
from d3po.inputs import read_regular

LARGEST = 50_000_000
"""Pixels, about 7000 x 7000. A file of a few bytes may claim to hold far more."""

READABLE = ("PNG", "JPEG", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
ADDRESS_IN_MEMORY = re.compile(r"<[^<>]* at 0x[0-9a-fA-F]+>")


def read_picture(path: Path, where: str) -> Image.Image:
    """Read the picture in a file; see `decode`.

    Raises:
        FormatError: the file cannot be read, or is not a complete picture.
    """
    return decode(read_regular(path, where), where)


def decode(content: bytes, where: str) -> Image.Image:
    """Decode a PNG, JPEG or WebP to RGB with 8 bits a channel, turned as its EXIF tag says, with transparency on white.

    Of 16-bit values the upper 8 bits are kept, as Pillow does for colour pictures.

    Args:
        content: the file's bytes.
        where: where the picture is named, for messages: a file, line and field.

    Raises:
        FormatError: it is something else, is damaged, or has too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=READABLE) as opened:
                if opened.width * opened.height > LARGEST:
                    raise FormatError(f"{where}: the picture has {opened.width} x {opened.height} pixels; {LARGEST} are allowed in all")
                return _opaque(_eight_bits(ImageOps.exif_transpose(opened)))
    except FormatError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise FormatError(f"{where}: the picture claims to have far more than {LARGEST} pixels") from error
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        raise FormatError(f"{where}: not a whole PNG, JPEG or WebP picture ({_reason(content, error)})") from error


def encode(picture: Image.Image) -> bytes:
    """Encode a picture as a PNG without metadata."""
    buffer = io.BytesIO()
    Image.frombytes(picture.mode, picture.size, picture.tobytes()).save(buffer, format="PNG")
    return buffer.getvalue()


def encode_anew(content: bytes, where: str) -> bytes:
    """Re-encode a picture file as a PNG without metadata. Doing it again changes nothing.

    Raises:
        FormatError: see `decode`.
    """
    return encode(decode(content, where))


def _reason(content: bytes, error: Exception) -> str:
    if not content:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return f"it begins with {content[:8]!r}"
    return re.sub(ADDRESS_IN_MEMORY, "it", str(error)) or type(error).__name__


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Convert 16-bit grey to 8-bit grey. Pillow would clip the values, so that nearly everything is white."""
    if picture.mode != "I" and not picture.mode.startswith("I;16"):
        return picture
    values = np.asarray(picture).astype(np.int64).clip(0, 65535)
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    if isinstance(hidden := picture.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(values == hidden, 0, 255).astype(np.uint8)))
    return grey


def _opaque(picture: Image.Image) -> Image.Image:
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(white, layered).convert("RGB")
    return picture.convert("RGB")
