"""A stand-in for a safety detector: flags pictures with too much blood red. Used by defects.toml as `examples.comparisons.flagged:flagged`."""

import numpy as np
from PIL import Image

STRONG, WEAK = 0.6, 0.4
"""Red is above the one, green and blue below the other, on a scale of 0 to 1."""
MOST = 0.05
"""Share of such pixels above which a picture is flagged."""


def flagged(image: Image.Image, prompt: str) -> float:
    """-1 if the picture is flagged, 0 if not, whatever its prompt."""
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB"), dtype=np.float64) / 255, -1, 0)
    return -float(((red > STRONG) & (green < WEAK) & (blue < WEAK)).mean() > MOST)
