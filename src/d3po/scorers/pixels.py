"""Rewards computed from the pixels alone."""

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from d3po.errors import RewardError

JPEG_QUALITY = 95


def jpeg_incompressibility(image: Image.Image, prompt: str) -> float:
    """Size of the picture as a JPEG of quality 95, in kB (Black et al. 2024, arXiv 2305.13301, section 5.1)."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.tell() / 1000


def jpeg_compressibility(image: Image.Image, prompt: str) -> float:
    """Minus the size of the picture as a JPEG of quality 95, in kB."""
    return -jpeg_incompressibility(image, prompt)


def brightness(image: Image.Image, prompt: str) -> float:
    """Mean luma (ITU-R BT.601), 0 black to 1 white."""
    return float((_pixels(image) @ np.array([0.299, 0.587, 0.114])).mean())


def colourfulness(image: Image.Image, prompt: str) -> float:
    """Colourfulness (Hasler and Suesstrunk 2003): standard deviation plus 0.3 times mean of the opponent colours, pixels in [0, 1]."""
    red, green, blue = np.moveaxis(_pixels(image), -1, 0)
    opponents = np.stack([red - green, (red + green) / 2 - blue])
    spread, mean = opponents.std(axis=(1, 2)), opponents.mean(axis=(1, 2))
    return float(np.hypot(*spread) + 0.3 * np.hypot(*mean))


def warmth(image: Image.Image, prompt: str) -> float:
    """Mean red minus mean blue, -1 (blue) to 1 (red): reds, oranges and yellows are warm."""
    pixels = _pixels(image)
    return float((pixels[..., 0] - pixels[..., 2]).mean())


def closeness_to(colour: str) -> Callable[[Image.Image, str], float]:
    """Make the reward that is minus the mean distance of the pixels to a colour, in RGB with channels in [0, 1]; 0 if every pixel has that colour.

    Raises:
        RewardError: `colour` names no colour.
    """
    try:
        target = np.array(ImageColor.getrgb(colour)[:3]) / 255
    except ValueError as error:
        raise RewardError(f"closeness:{colour} names no colour; write it as #rrggbb or by an HTML name") from error

    def closeness(image: Image.Image, prompt: str) -> float:
        return -float(np.linalg.norm(_pixels(image) - target, axis=-1).mean())

    return closeness


def _pixels(image: Image.Image) -> NDArray[np.float64]:
    return np.asarray(image.convert("RGB"), dtype=np.float64) / 255
