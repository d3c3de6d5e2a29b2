"""Rollouts: sampling as a sequence of recorded steps, yielded one at a time so that memory does not grow with their number."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Num
from torch import Tensor

from d3po.diffusion.divergence import sketch
from d3po.diffusion.schedule import StepGrid
from d3po.diffusion.transition import Transition
from d3po.options import LogProbReduce

Predict = Callable[[Float[Tensor, " B *latent"], Num[Tensor, " B"]], Float[Tensor, " B *latent"]]
"""(x_t, timesteps) -> the network's prediction, guidance included."""


@dataclass(frozen=True, kw_only=True)
class RolloutStep:
    """The outcome of one reverse step for B images."""

    latents: Float[Tensor, " B *latent"]
    """x_{t-1}; after the last step, x_0."""
    expected: Float[Tensor, " B *latent"]
    """The x_0 that the network predicts at x_t."""
    log_probs: Float[Tensor, " B"]
    """log pi(x_{t-1} | x_t) under the sampling policy, in nats; nan where the step is deterministic."""
    sketches: Float[Tensor, " B width"]
    """Sketches of the sampling policy's mean (see `d3po.diffusion.divergence`)."""


def rollout(
    predict: Predict,
    transition: Transition,
    grid: StepGrid,
    start: Float[Tensor, " B *latent"],
    draw_noise: Callable[[tuple[int, ...]], Float[Tensor, " B *latent"]],
    *,
    reduce: LogProbReduce,
    stored: torch.dtype = torch.float32,
) -> Iterator[RolloutStep]:
    """Denoise `start` (x_T) to x_0 and yield every step.

    All images are in one batched network call per step. `draw_noise(latent shape)` is called once per stochastic step. Every latent is rounded to the
    precision in which it will be `stored` before anything reads it, so that a replay from disk sees the same numbers.

    Args:
        predict: the network's guided prediction.
        transition: the reverse step.
        grid: the steps.
        start: x_T of every image.
        draw_noise: draws standard normal noise of shape (B, *latent), given the latent shape.
        reduce: whether log-probs are sums or means over latent dimensions.
        stored: precision of the recorded latents.
    """
    x = start.to(stored).to(start.dtype)
    stochastic = transition.stochastic(grid).tolist()
    for i in range(len(grid)):
        with torch.no_grad():
            t = grid.timesteps[i].to(x.device).expand(len(x))
            previous = grid.previous[i].to(x.device).expand(len(x))
            step = transition.step(predict(x, t), x, t, previous)
            if stochastic[i]:
                x = step.draw(draw_noise(tuple(x.shape[1:])).to(x)).to(stored).to(x.dtype)
                log_probs = step.log_prob(x, reduce=reduce)
            else:
                x, log_probs = step.mean.to(stored).to(x.dtype), torch.full((len(x),), torch.nan, device=x.device)
        yield RolloutStep(latents=x, expected=step.expected, log_probs=log_probs, sketches=sketch(step.mean))
