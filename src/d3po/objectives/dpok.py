"""DPOK (Fan et al. 2023, arXiv 2305.16381, eq. 8): policy gradient with the exact KL of each step to the pretrained model as a penalty.

    L = -alpha min( A rho, A clip(rho, 1 - c, 1 + c) ) + beta KL( p_theta(x_{t-1} | x_t) || p_pre(x_{t-1} | x_t) )

rho is pi_theta / pi_old with pi_old the policy that sampled, clipped as in PPO. In the first update rho is 1, and its gradient is that of the log-prob.
The KL of two Gaussians of equal std is |mu_theta - mu_pre|^2 / (2 std^2). The baseline is the mean score of the prompt's images, in place of a learned
value function. The advantage A is in standard deviations of the round's scores.
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from d3po.objectives.base import ImageObjective, ImageTerms, by_prompt, centred, standardised
from d3po.objectives.policy_gradient import clipped_gain, is_gain_clipped


@dataclass(frozen=True, kw_only=True)
class DPOK(ImageObjective):
    """The DPOK objective with its settings; calling it returns the loss of each image and step."""

    alpha: float
    """Weight of the reward."""
    beta: float
    """Weight of the KL."""
    clip_range: float
    """c of the clipped ratio."""

    @property
    def reward_scale(self) -> float:
        return 1.0

    def values(self, labels: Float[Tensor, " N"], prompts: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """The advantages A, from the scores."""
        return by_prompt(centred, standardised(labels), prompts)

    def __call__(self, terms: ImageTerms) -> Float[Tensor, "S N"]:
        assert terms.kl is not None
        return self.beta * terms.kl - self.alpha * clipped_gain(terms, self.clip_range)

    def is_clipped(self, terms: ImageTerms) -> Bool[Tensor, "S N"]:
        return is_gain_clipped(terms, self.clip_range)
