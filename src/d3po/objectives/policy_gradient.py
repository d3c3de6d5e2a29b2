"""The clipped surrogate of PPO (Schulman et al. 2017, arXiv 1707.06347, eq. 7), which DDPO and DPOK share."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from d3po.objectives.base import ImageTerms


def clipped_gain(terms: ImageTerms, clip_range: float) -> Float[Tensor, "S N"]:
    """min(A rho, A clip(rho, 1 - c, 1 + c)) of advantages A and ratios rho = exp(log-ratio)."""
    ratio = terms.log_ratio.exp()
    return torch.minimum(terms.value * ratio, terms.value * ratio.clamp(1 - clip_range, 1 + clip_range))


def is_gain_clipped(terms: ImageTerms, clip_range: float) -> Bool[Tensor, "S N"]:
    """Where clipping cut its gradient off: a better image past the upper bound, a worse one past the lower."""
    ratio = terms.log_ratio.exp()
    return torch.where(terms.value > 0, ratio > 1 + clip_range, ratio < 1 - clip_range) & (terms.value != 0)
