"""Diffusion-KTO (Li et al. 2024, arXiv 2404.04465): likes and dislikes of single pictures, no pairs.

With r = -(e_theta - e_ref) of a picture at one noise level, y = +1 of liked and -1 of disliked pictures, and the reference point
z = max(0, mean of r over the update), through which no gradient goes,

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
    """The objective's settings."""

    beta: float
    """How soon a picture counts as learnt; larger keeps the policy closer to the reference."""
    dislike_weight: float
    """w of disliked pictures; that of liked ones is 1."""

    @property
    def reward_scale(self) -> float:
        return self.beta

    def values(self, labels: Float[Tensor, " N"], prompts: Int[Tensor, " N"]) -> Float[Tensor, " N"]:  # noqa: ARG002
        """Likes as they are: 1 liked, -1 disliked, in between where people disagree."""
        return labels

    def __call__(self, terms: ImageTerms) -> Float[Tensor, "S N"]:
        gain = self.beta * (terms.log_ratio - max(0.0, terms.batch_mean))
        liked = terms.value.clamp(min=0) * (1 - torch.sigmoid(gain))
        disliked = terms.value.clamp(max=0).abs() * (1 - torch.sigmoid(-gain))
        return liked + self.dislike_weight * disliked
