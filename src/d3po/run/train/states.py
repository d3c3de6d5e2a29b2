"""The trainer's state at the end of a round, or on the way: a checkpoint, with the moving-average reference beside it."""

from collections.abc import Mapping

from torch import Tensor

from d3po.artifacts.checkpoints import save_checkpoint, under
from d3po.run.session import Session

REFERENCE = "reference."
"""Prefix of the moving-average reference's weights in a checkpoint."""


def save_state(session: Session, round: int, update: int, *, final: bool, moving: Mapping[str, Tensor] | None) -> None:
    """Keep the trainer's state after so many updates of the round, and the moving average where the run keeps one."""
    tensors = session.trainer.state() | {REFERENCE + name: value for name, value in (moving or {}).items()}
    metadata: dict[str, object] = {"round": round, "update": update, "seed": session.run.config.seed, "model": session.run.config.model}
    save_checkpoint(session.run.folder.checkpoints, round=round, update=update, final=final, tensors=tensors, metadata=metadata)


def moving_average_in(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The moving average that a checkpoint holds; empty if it holds none."""
    return under(REFERENCE, tensors)
