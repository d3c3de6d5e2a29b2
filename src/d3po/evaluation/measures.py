"""Measures of sets of pictures: diversity and artefacts."""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray


def diversity(images: NDArray[np.float64]) -> float:
    """Mean pairwise distance of the images of one prompt, averaged over prompts.

    Args:
        images: (P prompts, n images, height, width, 3) in [0, 1]. The distance of two images is the root mean square of
            their pixel differences, so 0 means equal and 1 black against white.
    """
    pairs = combinations(range(images.shape[1]), 2)
    return float(np.mean([np.sqrt(((images[:, i] - images[:, j]) ** 2).mean(axis=(1, 2, 3))) for i, j in pairs]))


def share(value: float, base: float) -> float:
    """A measure as a share of the base model's; 1 where the base model has none of it, for there is nothing to hold it against."""
    return value / base if base > 0 else 1.0


def checkerboard_energy(images: NDArray[np.float64]) -> float:
    """Mean energy of the 2x2 checkerboard pattern (the diagonal Haar detail), over all offsets.

    Over-optimised diffusion models buy score with such patterns; compare it with the base model's.

    Args:
        images: (..., height, width, 3) in [0, 1].
    """
    detail = images[..., :-1, :-1, :] - images[..., 1:, :-1, :] - images[..., :-1, 1:, :] + images[..., 1:, 1:, :]
    return float((detail**2).mean() / 4)
