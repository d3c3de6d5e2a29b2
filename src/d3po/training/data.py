"""A round's judgements, grouped by prompt, with the pictures and trajectories they speak of."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from d3po.artifacts.shards import Shard


@dataclass(frozen=True, kw_only=True)
class ImageLabels:
    """What is said of K images one by one, as an `ImageObjective` reads it."""

    values: Float[Tensor, " K"]
    """What the objective made of likes or scores."""
    signs: Float[Tensor, " K"]
    """1 of images that are better than their prompt's mean, -1 of worse ones, 0 at it."""
    weights: Float[Tensor, " K"]


@dataclass(frozen=True, kw_only=True)
class ReferenceSteps:
    """The reference's own steps from the x_t of every recorded step of B images; nan where a step is deterministic."""

    log_probs: Float[Tensor, "T B"]
    """log pi_ref of what was recorded."""
    sketches: Float[Tensor, "T B width"]
    """Of its means (see `d3po.diffusion.divergence`)."""

    def of(self, rows: Int[Tensor, " K"]) -> "ReferenceSteps":
        """Of these images."""
        return ReferenceSteps(log_probs=self.log_probs[:, rows], sketches=self.sketches[:, rows])


@dataclass(frozen=True, kw_only=True)
class PromptGroup:
    """The K judged images of one prompt, and the P comparisons between them or the labels of each."""

    prompt: int
    """The prompt's row in the round's condition."""
    shard: Shard
    rows: Int[Tensor, " K"]
    """The images' rows in the shard."""
    pairs: Int[Tensor, "P 2"]
    """Comparisons as positions in `rows`: (a, b)."""
    targets: Float[Tensor, " P"]
    weights: Float[Tensor, " P"]
    reference: ReferenceSteps | None
    """Of objectives that read trajectories."""
    labels: ImageLabels | None = None
    """Of objectives that read images one by one; those get no pairs."""
    identity: str = ""
    """The prompt's text, which noise is drawn for."""
    branch: int | None = None
    """The one step in which these images parted, if they did: the only one whose two actions are of one state."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape that latents of all its images have."""
        return self.shard.latent_shape

    def goes_with(self, other: "PromptGroup") -> bool:
        """Whether images of both can be in one network call."""
        return self.branch == other.branch and self.latent_shape == other.latent_shape

    @property
    def weight(self) -> float:
        """What all its judgements weigh together."""
        return float((self.weights if self.labels is None else self.labels.weights).sum())

    def latents(self, positions: Sequence[int]) -> dict[int, Float[Tensor, " K *latent"]]:
        """x at the given positions of the trajectories (0 is x_T), each read from disk once."""
        return {position: self.shard.latents(position)[self.rows] for position in sorted(set(positions))}

    def clean(self) -> Float[Tensor, " K *latent"]:
        """x_0 of the images."""
        return self.shard.clean()[self.rows]


def mean_weight(groups: Sequence[PromptGroup]) -> float:
    """What a prompt's judgements weigh together, on average over prompts."""
    return sum(group.weight for group in groups) / max(1, len(groups))


@dataclass(frozen=True, kw_only=True)
class StepBatch:
    """S steps of the N images of some prompts, ready for one network call."""

    x_t: Float[Tensor, "S N *latent"]
    x_next: Float[Tensor, "S N *latent"]
    steps: Int[Tensor, " S"]
    reference: ReferenceSteps | None


def step_batch(groups: Sequence[PromptGroup], steps: Int[Tensor, " S"]) -> StepBatch:
    """Read the steps' latents of all groups and put the images side by side."""
    wanted = steps.tolist()
    stores = [group.latents([*wanted, *(step + 1 for step in wanted)]) for group in groups]
    references = [group.reference for group in groups if group.reference is not None]
    return StepBatch(
        x_t=torch.stack([torch.cat([store[step] for store in stores]) for step in wanted]),
        x_next=torch.stack([torch.cat([store[step + 1] for store in stores]) for step in wanted]),
        steps=steps,
        reference=ReferenceSteps(
            log_probs=torch.cat([theirs.log_probs[steps] for theirs in references], dim=1),
            sketches=torch.cat([theirs.sketches[steps] for theirs in references], dim=1),
        )
        if references
        else None,
    )


def chunk_groups(groups: Sequence[PromptGroup], micro_batch_size: int) -> list[list[PromptGroup]]:
    """Consecutive groups of one branch and shape whose images together fit in `micro_batch_size`; a larger group stands alone."""
    chunks: list[list[PromptGroup]] = []
    filled = micro_batch_size
    for group in groups:
        if filled + len(group) > micro_batch_size or not group.goes_with(chunks[-1][0]):
            chunks.append([])
            filled = 0
        chunks[-1].append(group)
        filled += len(group)
    return chunks
