"""Diffusion-KTO (Li et al. 2024, arXiv 2404.04465): learning from likes and dislikes of single pictures, without pairs.

With r = -(e_theta - e_ref) of a picture at one noise level, where e is the mean squared denoising error, y = +1 for liked and -1 for disliked pictures,
and the reference point z = max(0, mean of r over the update), through which no gradient flows,

    L = w_y (1 - sigmoid( y beta (r - z) ))

The reference point is the mean over *all* images and noise levels of the update, however they are cut into network calls.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from d3po.objectives.base import ImageObjective, ImageTerms


@dataclass(frozen=True, kw_only=True)
class KTO(ImageObjective):
    """The Diffusion-KTO objective with its settings; calling it returns the loss of each image and noise level."""

    beta: float
    """Factor of r - z inside the sigmoid; larger saturates the loss sooner and so keeps the policy closer to the reference."""
    dislike_weight: float
    """w of disliked pictures; w of liked pictures is 1."""

    @property
    def reward_scale(self) -> float:
        return self.beta

    def values(self, labels: Float[Tensor, " N"], prompts: Int[Tensor, " N"]) -> Float[Tensor, " N"]:  # noqa: ARG002
        """The likes, unchanged: 1 is liked by all, -1 is disliked by all."""
        return labels

    def __call__(self, terms: ImageTerms) -> Float[Tensor, "S N"]:
        gain = self.beta * (terms.log_ratio - max(0.0, terms.batch_mean))
        liked = terms.value.clamp(min=0) * (1 - torch.sigmoid(gain))
        disliked = terms.value.clamp(max=0).abs() * (1 - torch.sigmoid(-gain))
        return liked + self.dislike_weight * disliked
