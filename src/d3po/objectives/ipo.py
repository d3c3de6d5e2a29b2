"""The IPO objective (Azar et al. 2023, arXiv 2310.12036, eq. 17), on denoising steps or on denoising errors.

With z the log-ratio margin r_a - r_b and sign h = 2 target - 1,

    L = (z - h / (2 beta))^2

The squared loss has its minimum at a finite margin, 1 / (2 beta), even if all annotators agree. At a tie its minimum is at a margin of 0.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from d3po.objectives.base import PairObjective


@dataclass(frozen=True, kw_only=True)
class IPO(PairObjective):
    """The IPO objective with its settings; calling it returns the loss of each pair and step."""

    beta: float
    """The loss aims at a margin of 1 / (2 beta)."""

    @property
    def reward_scale(self) -> float:
        """2 beta, so that the implicit reward is 1 at the margin that the loss aims at."""
        return 2 * self.beta

    def __call__(
        self, log_ratio_a: Float[Tensor, "*pairs"], log_ratio_b: Float[Tensor, "*pairs"], target: Float[Tensor, "*pairs"]
    ) -> Float[Tensor, "*pairs"]:
        return (log_ratio_a - log_ratio_b - (2 * target - 1) / (2 * self.beta)).square()
