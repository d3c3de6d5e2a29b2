"""DPOK (Fan et al. 2023, arXiv 2305.16381, eq. 8): policy gradient, held to the pretrained model by the exact KL of each step.

    L = -alpha A clipped(rho) + beta KL( p_theta(x_{t-1} | x_t) || p_pre(x_{t-1} | x_t) )

rho is pi_theta / pi_old with pi_old the policy that sampled (1 in the first update, where its gradient is that of the log-prob), clipped as in
PPO. The KL of two Gaussians of equal std is |mu_theta - mu_pre|^2 / (2 std^2). Instead of a learnt value function, the baseline is the mean of the
prompt's own scores; A is in standard deviations of the round.
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from d3po.objectives.base import ImageObjective, ImageTerms, by_prompt, centred, standardised
from d3po.objectives.policy_gradient import clipped_gain, is_gain_clipped


@dataclass(frozen=True, kw_only=True)
class DPOK(ImageObjective):
    """The objective's settings."""

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
        """The advantages."""
        return by_prompt(centred, standardised(labels), prompts)

    def __call__(self, terms: ImageTerms) -> Float[Tensor, "S N"]:
        assert terms.kl is not None
        return self.beta * terms.kl - self.alpha * clipped_gain(terms, self.clip_range)

    def is_clipped(self, terms: ImageTerms) -> Bool[Tensor, "S N"]:
        return is_gain_clipped(terms, self.clip_range)
