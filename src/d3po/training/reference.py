"""The reference policy's steps, as a log-prob and a sketch for each image and step; no second network is kept in memory."""

import math
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from d3po.artifacts.shards import Shard
from d3po.batch_sizer import BatchSizer
from d3po.diffusion.divergence import sketch, sketch_width
from d3po.models.base import AbstractPolicy, Condition
from d3po.models.replay import Replay
from d3po.training.data import ReferenceSteps


@torch.no_grad()
def reference_steps(
    policy: AbstractPolicy,
    replay: Replay,
    shard: Shard,
    condition: Condition,
    *,
    micro_batch_size: int,
    sizer: BatchSizer,
    within: AbstractContextManager[None] | None = None,
) -> ReferenceSteps:
    """Compute the reference's steps at all T recorded steps of a shard's B images, at most `micro_batch_size` images at a time.

    Args:
        policy: the policy.
        replay: how the shard was sampled.
        shard: the recorded trajectories.
        condition: the condition of each image.
        micro_batch_size: most images in one network call.
        sizer: halves the batch where it does not fit into memory.
        within: context in which the policy is the reference, such as `policy.without_adapter()`; by default the policy as it is.
    """
    replay = replay.at(shard.latent_shape)
    trainable = replay.transition.stochastic(replay.grid)
    images = shard.latents(0).shape[0]
    recorded = shard.log_probs()
    result = recorded.new_full((*recorded.shape, 1 + sketch_width(math.prod(shard.latent_shape))), torch.nan)

    def of_step(step: int) -> Tensor:
        """Log-prob and sketch of one step, concatenated: shape (B, 1 + width)."""
        x_t, x_next, at = shard.latents(step), shard.latents(step + 1), torch.tensor([step])

        def part(chunk: slice) -> Tensor:
            steps = replay.step(policy, x_t[None, chunk], at, condition.select(torch.arange(images)[chunk]))
            return torch.cat([replay.log_prob_of(steps, x_next[None, chunk])[0][:, None], sketch(steps.mean)], dim=1).cpu()

        return sizer.split(part, images, most=micro_batch_size)

    with within or nullcontext():
        for step in trainable.nonzero().flatten().tolist():
            result[step] = of_step(step)
    return ReferenceSteps(log_probs=result[..., 0].contiguous(), sketches=result[..., 1:].contiguous())


def moving_average(old: dict[str, Tensor], new: dict[str, Tensor], decay: float) -> dict[str, Tensor]:
    """decay * old + (1 - decay) * new for each weight; for a LoRA, of each factor."""
    assert old.keys() == new.keys()
    return {name: decay * old[name] + (1 - decay) * new[name] for name in old}


@contextmanager
def swapped_weights(policy: AbstractPolicy, weights: dict[str, Tensor]) -> Generator[None, None, None]:
    """Context in which the policy has other trainable weights."""
    before = policy.state()
    policy.load_state(weights)
    try:
        yield
    finally:
        policy.load_state(before)
