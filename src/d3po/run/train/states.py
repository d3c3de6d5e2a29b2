"""Saves the trainer's state and the moving-average reference in checkpoints."""

from collections.abc import Mapping

from torch import Tensor

from d3po.artifacts.checkpoints import save_checkpoint, under
from d3po.run.session import Session

REFERENCE = "reference."
"""The prefix of the moving-average reference's weights in a checkpoint."""


def save_state(session: Session, round: int, update: int, *, final: bool, moving: Mapping[str, Tensor] | None) -> None:
    """Save the trainer's state after `update` updates of the round, and the moving average if the run keeps one."""
    tensors = session.trainer.state() | {REFERENCE + name: value for name, value in (moving or {}).items()}
    metadata: dict[str, object] = {"round": round, "update": update, "seed": session.run.config.seed, "model": session.run.config.model}
    save_checkpoint(session.run.folder.checkpoints, round=round, update=update, final=final, tensors=tensors, metadata=metadata)


def moving_average_in(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The moving average in a checkpoint's tensors. Empty if there is none."""
    return under(REFERENCE, tensors)
