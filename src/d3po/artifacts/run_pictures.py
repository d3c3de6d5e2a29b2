"""Reading pictures that a run has made."""

import io
from pathlib import Path

from PIL import Image

from d3po.artifacts.files import read_bytes
from d3po.errors import CorruptFileError

SAMPLE_AGAIN = "make it again with `d3po sample RUN --repair`"
"""What to do about a damaged picture of a round that is not yet trained on."""


def read_picture(path: Path, *, remedy: str, checksum: str | None = None) -> Image.Image:
    """Read, verify and decode a picture.

    Args:
        path: the file.
        remedy: what to do if it is damaged; for messages.
        checksum: SHA-256 of the bytes that were written; None if it was not recorded.

    Raises:
        CorruptFileError: the file is gone, not what was written, or no picture.
        StorageError: the file cannot be read.
    """
    content = read_bytes(path, remedy=remedy, checksum=checksum)
    try:
        picture = Image.open(io.BytesIO(content))
        picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CorruptFileError(f"{path} is damaged: it is no picture that can be read; {remedy}") from error
    return picture
