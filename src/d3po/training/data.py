"""A round's comparisons, grouped by prompt, with the trajectories they speak of."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from d3po.storage.shards import Shard


@dataclass(frozen=True, kw_only=True)
class PromptGroup:
    """The K compared images of one prompt and the P comparisons between them."""

    prompt: int
    """The prompt's row in the round's condition."""
    shard: Shard
    rows: Int[Tensor, " K"]
    """The images' rows in the shard."""
    pairs: Int[Tensor, "P 2"]
    """Comparisons as positions in `rows`: (a, b)."""
    targets: Float[Tensor, " P"]
    weights: Float[Tensor, " P"]
    reference: Float[Tensor, "T K"]
    """log pi_ref of every step of every image."""

    def __len__(self) -> int:
        return len(self.rows)

    def latents(self, positions: Sequence[int]) -> dict[int, Float[Tensor, " K *latent"]]:
        """x at the given positions of the trajectories (0 is x_T), each read from disk once."""
        return {position: self.shard.latents(position)[self.rows] for position in sorted(set(positions))}


@dataclass(frozen=True, kw_only=True)
class StepBatch:
    """S steps of the N images of some prompts, ready for one network call."""

    x_t: Float[Tensor, "S N *latent"]
    x_next: Float[Tensor, "S N *latent"]
    steps: Int[Tensor, " S"]
    reference: Float[Tensor, "S N"]


def step_batch(groups: Sequence[PromptGroup], steps: Int[Tensor, " S"]) -> StepBatch:
    """Read the steps' latents of all groups and put the images side by side."""
    wanted = steps.tolist()
    stores = [group.latents([*wanted, *(step + 1 for step in wanted)]) for group in groups]
    return StepBatch(
        x_t=torch.stack([torch.cat([store[step] for store in stores]) for step in wanted]),
        x_next=torch.stack([torch.cat([store[step + 1] for store in stores]) for step in wanted]),
        steps=steps,
        reference=torch.cat([group.reference[steps] for group in groups], dim=1),
    )


def chunk_groups(groups: Sequence[PromptGroup], max_rows: int) -> list[list[PromptGroup]]:
    """Consecutive groups whose images together fit in `max_rows`; a larger group stands alone."""
    chunks: list[list[PromptGroup]] = []
    filled = max_rows
    for group in groups:
        if filled + len(group) > max_rows:
            chunks.append([])
            filled = 0
        chunks[-1].append(group)
        filled += len(group)
    return chunks
