"""A round's training data: comparisons or labels grouped by prompt, with the images' recorded trajectories."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from d3po.artifacts.shards import Shard


@dataclass(frozen=True, kw_only=True)
class GroupLabels:
    """The labels of K images, as an `ImageObjective` reads them."""

    values: Float[Tensor, " K"]
    """What `ImageObjective.values` returned for the likes or scores."""
    signs: Float[Tensor, " K"]
    """1 for an image whose label is above its prompt's mean, -1 for one below, 0 for one equal to it."""
    weights: Float[Tensor, " K"]
    """How much each image counts in the loss."""


@dataclass(frozen=True, kw_only=True)
class ReferenceSteps:
    """The reference's step distribution at every recorded step of B images; nan where a step is deterministic."""

    log_probs: Float[Tensor, "T B"]
    """log pi_ref(x_{t-1} | x_t) of the recorded step, in nats."""
    sketches: Float[Tensor, "T B width"]
    """Sketches of the reference's means (see `d3po.diffusion.divergence`)."""

    def of(self, indices: Int[Tensor, " K"]) -> "ReferenceSteps":
        """The steps of the images at these indices."""
        return ReferenceSteps(log_probs=self.log_probs[:, indices], sketches=self.sketches[:, indices])


@dataclass(frozen=True, kw_only=True)
class PromptGroup:
    """K compared or labelled images of one prompt, with the P comparisons between them or the label of each."""

    prompt: int
    """The prompt's index in the round's condition."""
    shard: Shard
    indices: Int[Tensor, " K"]
    """The images' indices in the shard's batch."""
    pairs: Int[Tensor, "P 2"]
    """Comparisons (a, b), as positions in `indices`."""
    targets: Float[Tensor, " P"]
    """The share of preference, in [0, 1], that image a holds."""
    weights: Float[Tensor, " P"]
    """How much each comparison counts in the loss."""
    reference: ReferenceSteps | None
    """The reference's steps; None for objectives that read pictures alone."""
    labels: GroupLabels | None = None
    """The images' labels, for objectives that read images one by one; those have no pairs."""
    identity: str = ""
    """The prompt's text, from which seeds of noise are derived."""
    branch: int | None = None
    """The step at which these images were branched from one latent, if they were: the only step at which they share the state."""

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one image's latents."""
        return self.shard.latent_shape

    def goes_with(self, other: "PromptGroup") -> bool:
        """Whether the images of both groups can be in one network call."""
        return self.branch == other.branch and self.latent_shape == other.latent_shape

    @property
    def weight(self) -> float:
        """The summed weight of the group's comparisons or labels."""
        return float((self.weights if self.labels is None else self.labels.weights).sum())

    def latents(self, positions: Sequence[int]) -> dict[int, Float[Tensor, " K *latent"]]:
        """The images' latents at the given positions of the trajectories (0 is x_T), by position, each read from disk once."""
        return {position: self.shard.latents(position)[self.indices] for position in sorted(set(positions))}

    def clean(self) -> Float[Tensor, " K *latent"]:
        """The images' final latents x_0."""
        return self.shard.clean()[self.indices]


def mean_weight(groups: Sequence[PromptGroup]) -> float:
    """The mean over prompts of the summed weight of a prompt's comparisons or labels."""
    return sum(group.weight for group in groups) / max(1, len(groups))


@dataclass(frozen=True, kw_only=True)
class StepBatch:
    """S recorded steps of the N images of several prompts, ready for one network call."""

    x_t: Float[Tensor, "S N *latent"]
    x_next: Float[Tensor, "S N *latent"]
    """The recorded x_{t-1}."""
    steps: Int[Tensor, " S"]
    """Positions in the sampler's grid."""
    reference: ReferenceSteps | None
    """The reference's steps at `steps`; None for objectives that read pictures alone."""


def step_batch(groups: Sequence[PromptGroup], steps: Int[Tensor, " S"]) -> StepBatch:
    """Read the latents of `steps` from disk and concatenate the images of all groups."""
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
    """Join consecutive groups of equal branch and latent shape, up to `micro_batch_size` images; a group larger than that is a chunk by itself."""
    chunks: list[list[PromptGroup]] = []
    filled = micro_batch_size
    for group in groups:
        if filled + len(group) > micro_batch_size or not group.goes_with(chunks[-1][0]):
            chunks.append([])
            filled = 0
        chunks[-1].append(group)
        filled += len(group)
    return chunks
