"""Metrics of each pair (or image) and step, besides the loss. They are defined in docs/metrics.md."""

import torch
from jaxtyping import Float
from torch import Tensor

from d3po.objectives.base import ImageObjective, ImageTerms, PairObjective


@torch.no_grad()
def pair_metrics(
    objective: PairObjective,
    losses: Float[Tensor, "*pairs"],
    log_ratio_a: Float[Tensor, "*pairs"],
    log_ratio_b: Float[Tensor, "*pairs"],
    target: Float[Tensor, "*pairs"],
    step_scale: Float[Tensor, "*scale"] | float = 1.0,
) -> dict[str, Float[Tensor, "*pairs"]]:
    """Metrics of each pair and step, by name, to be averaged by the caller.

    `step_scale` is the step weight by which the loss multiplied the log-ratios; it determines which of them are clipped.
    """
    a_wins = target >= 0.5
    winner = torch.where(a_wins, log_ratio_a, log_ratio_b)
    loser = torch.where(a_wins, log_ratio_b, log_ratio_a)
    return {
        "loss": losses.detach(),
        "margin": winner - loser,
        "accuracy": (winner > loser).float() + 0.5 * (winner == loser).float(),
        "winner_log_ratio": winner,
        "loser_log_ratio": loser,
        "clip_fraction": objective.clipped_share(step_scale * log_ratio_a, step_scale * log_ratio_b, target),
    }


@torch.no_grad()
def image_metrics(
    objective: ImageObjective, losses: Float[Tensor, "S N"], terms: ImageTerms, sign: Float[Tensor, " N"]
) -> dict[str, Float[Tensor, "S N"]]:
    """Metrics of each image and step, by name, for objectives on single images; nan where a metric does not apply to an image.

    `sign` is 1 for images whose label is above their prompt's mean, -1 for images below it, and 0 at the mean. Images with sign 1 count as winners, images
    with sign -1 as losers.
    """
    log_ratio = terms.log_ratio.detach()
    gain = sign * log_ratio
    nothing = torch.full_like(log_ratio, torch.nan)
    return {
        "loss": losses.detach(),
        "margin": 2 * gain,
        "accuracy": (gain > 0).float() + 0.5 * (gain == 0).float(),
        "winner_log_ratio": torch.where(sign > 0, log_ratio, nothing),
        "loser_log_ratio": torch.where(sign < 0, log_ratio, nothing),
        "clip_fraction": objective.is_clipped(terms).float(),
    }
