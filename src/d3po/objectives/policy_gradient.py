"""The clipped surrogate of PPO (Schulman et al. 2017, arXiv 1707.06347, eq. 7), which DDPO and DPOK share."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from d3po.objectives.base import ImageTerms


def clipped_gain(terms: ImageTerms, clip_range: float) -> Float[Tensor, "S N"]:
    """min(A rho, A clip(rho, 1 - c, 1 + c)) for advantages A, ratios rho = exp(log-ratio) and c the clip range."""
    ratio = terms.log_ratio.exp()
    return torch.minimum(terms.value * ratio, terms.value * ratio.clamp(1 - clip_range, 1 + clip_range))


def is_gain_clipped(terms: ImageTerms, clip_range: float) -> Bool[Tensor, "S N"]:
    """Where clipping removed the gradient: images with A > 0 above the upper bound, images with A < 0 below the lower bound."""
    ratio = terms.log_ratio.exp()
    return torch.where(terms.value > 0, ratio > 1 + clip_range, ratio < 1 - clip_range) & (terms.value != 0)
