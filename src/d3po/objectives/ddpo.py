"""DDPO (Black et al. 2023, arXiv 2305.13301): policy gradient on denoising steps, clipped as in PPO.

With rho = pi_theta / pi_old of one step, pi_old the policy that sampled, and the advantage A of the image,

    L = -min( A rho, A clip(rho, 1 - c, 1 + c) ),     A = clip( (R - mean) / (std + 1e-6), -5, 5 )

where R is the image's score, and mean and std are over the prompt's images in this round (the paper keeps a buffer of a prompt's last scores over rounds).
A is 0 where a prompt's scores are all equal.
"""

from dataclasses import dataclass
from functools import partial

from jaxtyping import Bool, Float, Int
from torch import Tensor

from d3po.objectives.base import ImageObjective, ImageTerms, by_prompt, standardised
from d3po.objectives.policy_gradient import clipped_gain, is_gain_clipped

LARGEST_ADVANTAGE = 5.0
SMALLEST_SPREAD = 1e-6
"""Added to the standard deviation, in the unit of the scores, as in the published code."""


@dataclass(frozen=True, kw_only=True)
class DDPO(ImageObjective):
    """The DDPO objective with its settings; calling it returns the loss of each image and step."""

    clip_range: float
    """c. Where log-probs are means over dimensions, ratios are very close to 1; hence the small published value."""

    @property
    def reward_scale(self) -> float:
        return 1.0

    def values(self, labels: Float[Tensor, " N"], prompts: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """The advantages A, from the scores."""
        return by_prompt(partial(standardised, epsilon=SMALLEST_SPREAD), labels, prompts).clamp(-LARGEST_ADVANTAGE, LARGEST_ADVANTAGE)

    def __call__(self, terms: ImageTerms) -> Float[Tensor, "S N"]:
        return -clipped_gain(terms, self.clip_range)

    def is_clipped(self, terms: ImageTerms) -> Bool[Tensor, "S N"]:
        return is_gain_clipped(terms, self.clip_range)
