"""The reference policy of a round, and its steps for the round's shards: the sampler's if that was the reference, else computed once and cached."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from d3po.artifacts.files import find_whole, write_atomically
from d3po.artifacts.shards import Shard
from d3po.errors import RunFolderError
from d3po.models.base import Condition
from d3po.options import ReferenceRefresh
from d3po.run.opened import OpenRun
from d3po.run.session import Session
from d3po.training.data import ReferenceSteps
from d3po.training.reference import reference_steps, swapped_weights

Weights = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class References:
    """The weights that may serve as the reference of a round."""

    start: Weights | None
    """The trainable weights at the round's start; None before any training."""
    moving: Weights | None
    """The moving average of the trainable weights, if the run keeps one."""


def steps_of_shards(
    session: Session, round: int, indices: Mapping[Shard, Sequence[int]], condition: Condition, references: References
) -> dict[Shard, ReferenceSteps]:
    """The steps of the reference for each shard. Empty for objectives that read pictures instead of trajectories.

    Args:
        session: the open run with its model.
        round: the round to which the shards belong.
        indices: for each shard, the index of each of its images in `condition`.
        condition: the condition of the round's prompts.
        references: the weights that may serve as the reference.

    Raises:
        RunFolderError: a shard holds no sketches, by which the KL is measured.
    """
    if session.run.needs.evidence == "pictures":
        return {}
    return {shard: _of_shard(session, round, shard, condition.select(torch.tensor(mine)), references) for shard, mine in indices.items()}


def _of_shard(session: Session, round: int, shard: Shard, condition: Condition, references: References) -> ReferenceSteps:
    """The reference's steps for a shard: the sampler's if that was the reference, else computed once and cached."""
    sketches = shard.sketches()
    if sketches is None and session.run.config.adapter.method == "full":
        raise RunFolderError(
            f"rollout shard {shard.path} was sampled by an earlier version, which did not store what is needed to measure the KL; start a new run folder"
        )
    if (reference_kind(session.run) == "per_round" or round == 0) and session.run.config.training.guided and sketches is not None:
        return ReferenceSteps(log_probs=shard.log_probs(), sketches=sketches)
    cached = _cached(shard)
    if cached is not None:
        return cached
    steps = reference_steps(
        session.policy,
        session.trainer.replay,
        shard,
        condition,
        micro_batch_size=session.run.config.training.micro_batch_size,
        sizer=session.reference_sizer,
        within=reference_context(session, references),
    )
    content = save({"log_probs": steps.log_probs, "sketches": steps.sketches})
    write_atomically(shard.path.with_suffix(f".reference-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"), content)
    return steps


def reference_kind(run: OpenRun) -> ReferenceRefresh:
    """The reference of the run's objective: the one that `objective.reference` names, or the round's start if the objective always uses the sampler."""
    return "per_round" if run.needs.reference == "sampler" else run.config.objective.reference


def reference_context(session: Session, references: References) -> AbstractContextManager[None]:
    """Within this context the policy is the round's reference."""
    weights = {"fixed": None, "per_round": references.start, "ema": references.moving}[reference_kind(session.run)]
    return session.policy.without_adapter() if weights is None else swapped_weights(session.policy, weights)


def _cached(shard: Shard) -> ReferenceSteps | None:
    """Read the cached steps of the reference. None if there are none, if the file does not match the hash in its name, or if it has no sketches."""
    path = find_whole(shard.path.parent, f"{shard.path.stem}.reference")
    kept = {} if path is None else load_file(path)
    return ReferenceSteps(log_probs=kept["log_probs"], sketches=kept["sketches"]) if "sketches" in kept else None
