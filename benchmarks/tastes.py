"""What simulated people like, each a reward `(image, prompt) -> float` that `feedback.reward = "benchmarks.tastes:NAME"` reads too.

Each measures something that a person sees in a small picture of one thing on a plain background. Half of them were used to choose settings (`TUNED_ON`);
results are reported on the others.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image

from d3po.scorers.learned.classifier import subject

EDGE = 0.25
"""The distance from the background's colour, in RGB of [0, 1], from which on a pixel belongs to the subject."""
SOFTNESS = 0.05
Pixels = Float[NDArray[np.float64], "H W 3"]


def warm_subject(image: Image.Image, prompt: str) -> float:
    """Red minus blue, averaged over the subject."""
    pixels = _pixels(image)
    return float(_mean_over(_subject(pixels), pixels[..., 0] - pixels[..., 2]))


def dark_background(image: Image.Image, prompt: str) -> float:
    """Minus the background's luma."""
    return -float(_luma(_background(_pixels(image))))


def contrast(image: Image.Image, prompt: str) -> float:
    """The standard deviation of the luma."""
    return float(_luma(_pixels(image)).std())


def crispness(image: Image.Image, prompt: str) -> float:
    """The mean absolute Laplacian of the luma."""
    luma = _luma(_pixels(image))
    inner = luma[1:-1, 1:-1]
    return float(np.abs(4 * inner - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]).mean())


def large_subject(image: Image.Image, prompt: str) -> float:
    """The share of the picture that the subject covers."""
    return float(_subject(_pixels(image)).mean())


def high_subject(image: Image.Image, prompt: str) -> float:
    """The height of the subject's centre, from -1 at the bottom to 1 at the top."""
    mask = _subject(_pixels(image))
    return float(_mean_over(mask, np.linspace(1, -1, len(mask))[:, None]))


def symmetry(image: Image.Image, prompt: str) -> float:
    """Minus the mean difference from the mirror image."""
    pixels = _pixels(image)
    return -float(np.abs(pixels - pixels[:, ::-1]).mean())


def tilt_to_the_right(image: Image.Image, prompt: str) -> float:
    """How far the subject leans from bottom left to top right: the covariance of its x and y over the geometric mean of their variances."""
    mask = _subject(_pixels(image))
    x, y = np.linspace(-1, 1, mask.shape[1])[None, :], np.linspace(1, -1, len(mask))[:, None]
    x, y = x - _mean_over(mask, x), y - _mean_over(mask, y)
    return float(_mean_over(mask, x * y) / np.sqrt(max(_mean_over(mask, x * x) * _mean_over(mask, y * y), 1e-12)))


def simple_outline(image: Image.Image, prompt: str) -> float:
    """Minus the length of the subject's outline over the root of its area."""
    mask = _subject(_pixels(image))
    outline = np.abs(np.diff(mask, axis=0)).sum() + np.abs(np.diff(mask, axis=1)).sum()
    return -float(outline / np.sqrt(max(mask.sum(), 1.0)))


def few_colours(image: Image.Image, prompt: str) -> float:
    """Minus the entropy, in nats, of the picture's colours, each channel in five steps."""
    steps = (4 * _pixels(image)).round().astype(int) @ [25, 5, 1]
    shares = np.bincount(steps.ravel(), minlength=125) / steps.size
    return float((shares * np.log(np.maximum(shares, 1e-12))).sum())


def agreement(image: Image.Image, prompt: str) -> float:
    """The log-probability that the picture shows its prompt's subject."""
    return subject()(image, prompt)


Taste = Callable[[Image.Image, str], float]
GROUPS: dict[str, tuple[Taste, ...]] = {
    "colour": (warm_subject, dark_background),
    "tone": (contrast, crispness, few_colours),
    "form": (large_subject, high_subject, symmetry, tilt_to_the_right, simple_outline),
    "meaning": (agreement,),
}
TASTES: dict[str, Taste] = {taste.__name__: taste for tastes in GROUPS.values() for taste in tastes}
TUNED_ON = ("warm_subject", "contrast", "large_subject", "symmetry", "agreement")
"""The tastes by which settings were chosen."""


def group_of(taste: str) -> str:
    """The group of a taste."""
    return next(group for group, tastes in GROUPS.items() if TASTES[taste] in tastes)


def _pixels(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB"), dtype=np.float64) / 255


def _luma(pixels: Float[NDArray[np.float64], "*shape 3"]) -> Float[NDArray[np.float64], " *shape"]:
    return pixels @ np.array([0.299, 0.587, 0.114])


def _background(pixels: Pixels) -> Float[NDArray[np.float64], "3"]:
    """The median colour of the picture's rim."""
    rim = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return np.median(rim, axis=0)


def _subject(pixels: Pixels) -> Float[NDArray[np.float64], "H W"]:
    """How much each pixel belongs to the subject, 0 to 1."""
    distance = np.linalg.norm(pixels - _background(pixels), axis=-1)
    return 1 / (1 + np.exp(-(distance - EDGE) / SOFTNESS))


def _mean_over(mask: Float[NDArray[np.float64], "H W"], values: NDArray[np.float64]) -> np.float64:
    return (mask * values).sum() / np.maximum(mask.sum(), 1.0)
