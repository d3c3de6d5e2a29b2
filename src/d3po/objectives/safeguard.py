"""The safeguard of Diffusion-SDPO (Fu et al. 2025, arXiv 2511.03317): a loser's gradient is scaled down where it would raise the winner's error.

With g_w and g_l the gradients of the winner's and the loser's denoising error in the network's output, a step of DPO goes along -(g_w - g_l), and changes the
winner's error by -(g_w - g_l) . g_w to first order, if both pictures' outputs move alike. With the loser's gradient times

    lambda = min( 1, (1 - mu) |g_w|^2 / (g_l . g_w) )  where g_l . g_w > 0, and 1 elsewhere,

the winner's error falls by mu |g_w|^2 or more. g is 2 / D times the difference d of prediction and target, so lambda is the same with d in its place.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PairProducts:
    """Inner products, in any one unit, of the differences d of prediction and target of both images of each pair."""

    aa: Float[Tensor, "*pairs"]
    bb: Float[Tensor, "*pairs"]
    ab: Float[Tensor, "*pairs"]


def safeguarded(
    log_ratio_a: Float[Tensor, "*pairs"],
    log_ratio_b: Float[Tensor, "*pairs"],
    target: Float[Tensor, "*pairs"],
    products: PairProducts,
    mu: float,
) -> tuple[Float[Tensor, "*pairs"], Float[Tensor, "*pairs"]]:
    """The same log-ratios, of which the loser's has its gradient times lambda. Of a tie neither is the loser."""
    winner = torch.where(target > 0.5, products.aa, products.bb)
    agree = products.ab > 0
    share = torch.where(agree, ((1 - mu) * winner / torch.where(agree, products.ab, 1.0)).clamp(max=1.0), 1.0)
    return (
        _with_gradient_times(torch.where(target < 0.5, share, 1.0), log_ratio_a),
        _with_gradient_times(torch.where(target > 0.5, share, 1.0), log_ratio_b),
    )


def _with_gradient_times(share: Float[Tensor, "*pairs"], value: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
    return value.detach() + share * (value - value.detach())
