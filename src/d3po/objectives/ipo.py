"""The IPO objective (Azar et al. 2023, arXiv 2310.12036, eq. 17), on denoising steps or on denoising errors.

With z the log-ratio margin r_a - r_b and sign h = 2 target - 1,

    L = (z - h / (2 beta))^2

A squared loss has a finite place to go to: a margin of 1 / (2 beta), and no further, however sure the judges are. At a tie that place is 0.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from d3po.objectives.base import PairObjective


@dataclass(frozen=True, kw_only=True)
class IPO(PairObjective):
    """The objective's settings."""

    beta: float
    """The margin aimed at is 1 / (2 beta)."""

    @property
    def reward_scale(self) -> float:
        """1 at the margin aimed at."""
        return 2 * self.beta

    def __call__(
        self, log_ratio_a: Float[Tensor, "*pairs"], log_ratio_b: Float[Tensor, "*pairs"], target: Float[Tensor, "*pairs"]
    ) -> Float[Tensor, "*pairs"]:
        return (log_ratio_a - log_ratio_b - (2 * target - 1) / (2 * self.beta)).square()
