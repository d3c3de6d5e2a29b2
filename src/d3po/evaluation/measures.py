"""Measures of sets of pictures: diversity and artefacts."""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray


def diversity(images: NDArray[np.float64]) -> float:
    """Mean distance between two images of the same prompt, averaged over pairs and prompts.

    The distance of two images is the root mean square of their pixel differences: 0 means equal, and 1 means black against white.

    Args:
        images: shape (P prompts, n images, height, width, 3), values in [0, 1].
    """
    pairs = combinations(range(images.shape[1]), 2)
    return float(np.mean([np.sqrt(((images[:, i] - images[:, j]) ** 2).mean(axis=(1, 2, 3))) for i, j in pairs]))


def share(value: float, base: float) -> float:
    """A measure as a share of the base model's. 1 if the base model's is 0."""
    return value / base if base > 0 else 1.0


def checkerboard_energy(images: NDArray[np.float64]) -> float:
    """Mean energy of the 2x2 checkerboard pattern (the diagonal Haar detail), over all offsets.

    Over-optimised diffusion models often raise their score with such patterns, so it is compared with the base model's.

    Args:
        images: shape (..., height, width, 3), values in [0, 1].
    """
    detail = images[..., :-1, :-1, :] - images[..., 1:, :-1, :] - images[..., :-1, 1:, :] + images[..., 1:, 1:, :]
    return float((detail**2).mean() / 4)
