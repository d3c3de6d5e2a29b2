"""The policy that an objective compares with, and its steps for a round's shards: the sampler's own where it was that policy, else computed once and kept."""

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
    """The policies that a round may be compared with."""

    start: Weights | None
    """The trainable weights the round began with; None before any training."""
    moving: Weights | None
    """Those of the moving average, of runs that keep one."""


def steps_of_shards(
    session: Session, round: int, indices: Mapping[Shard, Sequence[int]], condition: Condition, references: References
) -> dict[Shard, ReferenceSteps]:
    """Of each shard, the steps of the reference; none for objectives that read pictures instead of trajectories.

    Args:
        session: the opened run's.
        round: whose shards they are.
        indices: for each shard, the index of each of its images in `condition`.
        condition: of the round's prompts.
        references: the policies that the round may be compared with.

    Raises:
        RunFolderError: a shard holds nothing by which the KL could be measured.
    """
    if session.run.needs.evidence == "pictures":
        return {}
    return {shard: _of_shard(session, round, shard, condition.rows(torch.tensor(mine)), references) for shard, mine in indices.items()}


def _of_shard(session: Session, round: int, shard: Shard, condition: Condition, references: References) -> ReferenceSteps:
    """The sampler's own where it was the reference, else computed once and kept."""
    sketches = shard.sketches()
    if sketches is None and session.run.config.adapter.method == "full":
        raise RunFolderError(
            f"rollout shard {shard.path} was sampled by an earlier version, which kept nothing to measure the KL by; start a new run folder"
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
    """Which policy the objective compares with; those that compare with the sampler take the round's start, whatever is chosen."""
    return "per_round" if run.needs.reference == "sampler" else run.config.objective.reference


def reference_context(session: Session, references: References) -> AbstractContextManager[None]:
    """Within it the policy is the round's reference."""
    weights = {"fixed": None, "per_round": references.start, "ema": references.moving}[reference_kind(session.run)]
    return session.policy.without_adapter() if weights is None else swapped_weights(session.policy, weights)


def _cached(shard: Shard) -> ReferenceSteps | None:
    """The kept steps of the reference, if their bytes are those whose hash the file's name carries; what is damaged, or has no sketches, is made anew."""
    path = find_whole(shard.path.parent, f"{shard.path.stem}.reference")
    kept = {} if path is None else load_file(path)
    return ReferenceSteps(log_probs=kept["log_probs"], sketches=kept["sketches"]) if "sketches" in kept else None
