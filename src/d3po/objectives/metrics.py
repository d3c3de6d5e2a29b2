"""What is measured of every pair and step, next to the loss. Each metric is defined in docs/metrics.md."""

import torch
from jaxtyping import Float
from torch import Tensor

from d3po.objectives.d3po import D3PO


@torch.no_grad()
def pair_metrics(
    objective: D3PO,
    losses: Float[Tensor, "*pairs"],
    log_ratio_a: Float[Tensor, "*pairs"],
    log_ratio_b: Float[Tensor, "*pairs"],
    target: Float[Tensor, "*pairs"],
    nats_per_dimension: float,
    step_scale: Float[Tensor, "*scale"] | float = 1.0,
    sampled_by_reference: bool = True,
) -> dict[str, Float[Tensor, "*pairs"]]:
    """Per-pair, per-step metrics, to be averaged by the caller.

    `kl` is estimated without bias where the reference sampled the images, as KL(reference || policy): minus the log-ratio. Where
    a policy close to today's sampled them, the log-ratio itself estimates KL(policy || reference), and that is given.
    `nats_per_dimension` converts a log-ratio to nats per latent dimension (1 where it is a mean already).
    `step_scale` is what the loss multiplied the log-ratios by (step weighting), which decides where clipping cuts in.
    """
    lean = 2 * target - 1
    a_wins = target >= 0.5
    winner = torch.where(a_wins, log_ratio_a, log_ratio_b)
    loser = torch.where(a_wins, log_ratio_b, log_ratio_a)
    clipped = objective.is_clipped(step_scale * log_ratio_a, lean).float() + objective.is_clipped(step_scale * log_ratio_b, -lean).float()
    return {
        "loss": losses.detach(),
        "margin": winner - loser,
        "accuracy": (winner > loser).float() + 0.5 * (winner == loser).float(),
        "winner_log_ratio": winner,
        "loser_log_ratio": loser,
        "clip_fraction": clipped / 2,
        "kl": (winner + loser) / 2 * (-nats_per_dimension if sampled_by_reference else nats_per_dimension),
    }
