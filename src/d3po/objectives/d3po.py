"""The D3PO objective (Yang et al. 2024, arXiv 2311.13231, eq. 9 and algorithm 1).

For a pair of images a, b and one denoising step, with r the log-ratio log pi_theta / pi_ref of that step,

    L = -log sigmoid( beta * h * (c_a(r_a) - c_b(r_b)) ),     h = 2 * target - 1

where target is the share of annotators who prefer a (1: a wins, 0: b wins, 0.5: tie) and c is the clipping described at `D3PO.clip`.
At h = 0 the loss is log 2 and has no gradient, so nothing is learned from a tie.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from d3po.objectives.base import PairObjective, preference_loss
from d3po.options import Clip, Targets


@dataclass(frozen=True, kw_only=True)
class D3PO(PairObjective):
    """The D3PO objective with its settings; calling it returns the loss of each pair and step."""

    beta: float
    """Factor of the log-ratio margin inside the sigmoid; larger keeps the policy closer to the reference."""
    clip: Clip
    """`none` does not clip. `two_sided`, as published, removes the gradient once a ratio leaves [1-eps, 1+eps] on either side. `one_sided`
    clips only a winner above 1+eps and a loser below 1-eps, so a ratio on the wrong side still has a gradient."""
    clip_range: float
    """eps of the clipping."""
    targets: Targets = "signed"
    """`signed` multiplies the margin by 2*target-1. `cross_entropy` reads the target as a probability: the loss is smallest where
    sigmoid(beta * margin) equals it, so a tie pulls the two log-ratios together."""

    @property
    def reward_scale(self) -> float:
        return self.beta

    @property
    def loss_range(self) -> tuple[float, float] | None:
        if self.clip != "two_sided":
            return None
        reach = self.beta * (math.log1p(self.clip_range) - math.log1p(-self.clip_range))
        return math.log1p(math.exp(-reach)), math.log1p(math.exp(reach))

    @property
    def drops_ties(self) -> bool:
        return self.targets == "signed"

    def __call__(
        self, log_ratio_a: Float[Tensor, "*pairs"], log_ratio_b: Float[Tensor, "*pairs"], target: Float[Tensor, "*pairs"]
    ) -> Float[Tensor, "*pairs"]:
        """The loss of each pair and step, in nats; `target` is the share of preference, in [0, 1], that image a holds."""
        sign = 2 * target - 1
        margin = self.clipped(log_ratio_a, sign) - self.clipped(log_ratio_b, -sign)
        if self.targets == "signed":
            return -F.logsigmoid(self.beta * sign * margin)
        return preference_loss(self.beta * margin, target)

    def clipped(self, log_ratio: Float[Tensor, "*pairs"], sign: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
        """The clipped log-ratio; `sign` is > 0 where this image is the winner, < 0 where it is the loser, 0 at a tie."""
        if self.clip == "none":
            return log_ratio
        low, high = self._bounds(log_ratio)
        if self.clip == "two_sided":
            return log_ratio.clamp(low, high)
        return torch.where(sign > 0, log_ratio.clamp(max=high), torch.where(sign < 0, log_ratio.clamp(min=low), log_ratio))

    def clipped_share(
        self, log_ratio_a: Float[Tensor, "*pairs"], log_ratio_b: Float[Tensor, "*pairs"], target: Float[Tensor, "*pairs"]
    ) -> Float[Tensor, "*pairs"]:
        """The share of each pair's two gradients, 0 to 1, that clipping removed; each image is clipped separately."""
        sign = 2 * target - 1
        cut_a = self.clipped(log_ratio_a, sign) != log_ratio_a
        cut_b = self.clipped(log_ratio_b, -sign) != log_ratio_b
        return (cut_a.to(log_ratio_a) + cut_b.to(log_ratio_a)) / 2

    def _bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return torch.log1p(like.new_tensor(-self.clip_range)), torch.log1p(like.new_tensor(self.clip_range))
