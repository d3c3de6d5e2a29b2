"""Diffusion-DPO (Wallace et al. 2023, arXiv 2311.12908, eq. 14), and its form for flow models (Flow-DPO, Liu et al. 2025, arXiv 2501.13918).

It needs finished pictures only. With e the mean squared denoising error, at a noise level and with noise that both pictures share, and
r = -(e_theta - e_ref),

    L = -log sigmoid( beta / 2 * (r_w - r_l) )

A soft target is read as a probability: the loss is the cross-entropy between the target and sigmoid(beta / 2 (r_a - r_b)), so a tie pulls r_a and r_b
together. With `winner_safeguard` the loser's gradient is held back, as in Diffusion-SDPO (`d3po.objectives.safeguard`).
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from d3po.objectives.base import PairObjective, preference_loss
from d3po.objectives.safeguard import PairProducts, safeguarded


@dataclass(frozen=True, kw_only=True)
class DiffusionDPO(PairObjective):
    """The Diffusion-DPO objective with its settings; calling it returns the loss of each pair and noise level."""

    beta: float
    """Larger keeps the policy closer to the reference."""
    winner_safeguard: float = 0.0
    """mu of the safeguard, in [0, 1]; 0 is without it."""

    @property
    def reward_scale(self) -> float:
        return 0.5 * self.beta

    @property
    def reads_products(self) -> bool:
        return self.winner_safeguard > 0

    def __call__(
        self, log_ratio_a: Float[Tensor, "*pairs"], log_ratio_b: Float[Tensor, "*pairs"], target: Float[Tensor, "*pairs"]
    ) -> Float[Tensor, "*pairs"]:
        return preference_loss(0.5 * self.beta * (log_ratio_a - log_ratio_b), target)

    def safeguarded(
        self,
        log_ratio_a: Float[Tensor, "*pairs"],
        log_ratio_b: Float[Tensor, "*pairs"],
        target: Float[Tensor, "*pairs"],
        products: PairProducts,
    ) -> tuple[Float[Tensor, "*pairs"], Float[Tensor, "*pairs"]]:
        if not self.reads_products:
            return log_ratio_a, log_ratio_b
        return safeguarded(log_ratio_a, log_ratio_b, target, products, self.winner_safeguard)
