"""Supervised fine-tuning: the denoising error of liked pictures, L = e. What disliked pictures look like is not used."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from d3po.objectives.base import ImageObjective, ImageTerms


@dataclass(frozen=True, kw_only=True)
class SFT(ImageObjective):
    """It has no settings."""

    def values(self, labels: Float[Tensor, " N"], prompts: Int[Tensor, " N"]) -> Float[Tensor, " N"]:  # noqa: ARG002
        """1 of a picture that all like, 0 of one that no more like than dislike, the label in between."""
        return labels.clamp(min=0)

    def can_learn_from(self, labels: Float[Tensor, " N"]) -> bool:
        """Any liked picture teaches it, be it that all are."""
        return bool((labels > 0).any())

    def __call__(self, terms: ImageTerms) -> Float[Tensor, "S N"]:
        """Loss of each image and noise level; there is no reference, so the log-ratio is -e itself."""
        return -terms.log_ratio * terms.value
