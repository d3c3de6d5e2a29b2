"""MaPO (Hong et al. 2024, arXiv 2406.06424): preference learning on pictures without a reference model.

With e the mean squared denoising error of an image and f(e) = s e / (exp(s e) - 1), which falls from 1 (a perfect prediction) to 0,

    L = e_w - beta log sigmoid( T (f(e_w) - f(e_l)) )

The first term alone is supervised fine-tuning on the winner; it takes the place of a reference. For a soft target, the loss is the mean of the losses of
both outcomes, weighted by the target.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from d3po.objectives.base import PairObjective


@dataclass(frozen=True, kw_only=True)
class MaPO(PairObjective):
    """The MaPO objective with its settings; calling it returns the loss of each pair and noise level."""

    beta: float
    """Weight of the preference term."""
    sharpness: float
    """T: factor of the difference inside the sigmoid."""
    scale: float = 0.5
    """s, the scale of the error in f."""

    def __call__(
        self, log_ratio_a: Float[Tensor, "*pairs"], log_ratio_b: Float[Tensor, "*pairs"], target: Float[Tensor, "*pairs"]
    ) -> Float[Tensor, "*pairs"]:
        """The loss of each pair and noise level. This objective has no reference, so it is given -e in place of the log-ratios."""
        a, b = -log_ratio_a, -log_ratio_b
        gap = self.sharpness * (self.certainty(a) - self.certainty(b))
        return target * (a - self.beta * F.logsigmoid(gap)) + (1 - target) * (b - self.beta * F.logsigmoid(-gap))

    def certainty(self, error: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
        """f(e) = s e / (exp(s e) - 1), which is 1 at e = 0."""
        exponent = (self.scale * error).clamp(min=1e-6)
        return exponent / torch.expm1(exponent)
