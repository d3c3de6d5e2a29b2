"""Supervised fine-tuning: the denoising error of liked pictures, L = e. What disliked pictures look like is not used."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from d3po.objectives.base import ImageObjective, ImageTerms


@dataclass(frozen=True, kw_only=True)
class SFT(ImageObjective):
    """It has no settings."""

    def values(self, labels: Float[Tensor, " N"], prompts: Int[Tensor, " N"]) -> Float[Tensor, " N"]:  # noqa: ARG002
        """1 of a liked picture, 0 of a disliked one, the share of likes in between."""
        return labels.clamp(min=0)

    def __call__(self, terms: ImageTerms) -> Float[Tensor, "S N"]:
        """Loss of each image and noise level; there is no reference, so the log-ratio is -e itself."""
        return -terms.log_ratio * terms.value
