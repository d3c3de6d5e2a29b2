"""Supervised fine-tuning: the denoising error of liked pictures, L = e. Disliked pictures are not used."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from d3po.objectives.base import ImageObjective, ImageTerms


@dataclass(frozen=True, kw_only=True)
class SFT(ImageObjective):
    """Supervised fine-tuning, which has no settings; calling it returns the loss of each image and noise level."""

    def values(self, labels: Float[Tensor, " N"], prompts: Int[Tensor, " N"]) -> Float[Tensor, " N"]:  # noqa: ARG002
        """The likes, with negative values set to 0: 1 is liked by all, 0 is not liked by more people than dislike it."""
        return labels.clamp(min=0)

    def can_learn_from(self, labels: Float[Tensor, " N"], prompts: Int[Tensor, " N"]) -> bool:  # noqa: ARG002
        """Whether any picture is liked; unlike for other objectives, all may be liked equally."""
        return bool((labels > 0).any())

    def __call__(self, terms: ImageTerms) -> Float[Tensor, "S N"]:
        """The loss of each image and noise level. There is no reference, so it is given -e in place of the log-ratio."""
        return -terms.log_ratio * terms.value
