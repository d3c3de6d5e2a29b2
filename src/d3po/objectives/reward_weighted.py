"""Reward-weighted regression: the denoising error of every sampled picture, weighted by how good it is.

L = w e with w = exp(R / tau) / Z, where R are the round's scores, standardised, and Z makes the weights' mean 1 (Peters and Schaal 2007; for
diffusion models Lee et al. 2023, arXiv 2302.12192, and the baseline of Black et al. 2023, arXiv 2305.13301, section 4.1).
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from d3po.objectives.base import ImageObjective, ImageTerms, standardised


@dataclass(frozen=True, kw_only=True)
class RewardWeighted(ImageObjective):
    """Reward-weighted regression with its settings; calling it returns the loss of each image and noise level."""

    temperature: float
    """tau, in standard deviations of the round's scores; as it goes to 0, only the best picture counts."""

    def values(self, labels: Float[Tensor, " N"], prompts: Int[Tensor, " N"]) -> Float[Tensor, " N"]:  # noqa: ARG002
        """The weights w, whose mean over the round is 1, from the scores."""
        return (standardised(labels) / self.temperature).softmax(dim=0) * len(labels)

    def __call__(self, terms: ImageTerms) -> Float[Tensor, "S N"]:
        """The loss of each image and noise level. There is no reference, so it is given -e in place of the log-ratio."""
        return -terms.log_ratio * terms.value
