"""Rollback: a round that a guard refused is undone, and the run continues from the policy before it, at half the learning rate."""

from dataclasses import asdict, dataclass

from d3po.artifacts.checkpoints import list_checkpoints
from d3po.artifacts.files import read_bytes
from d3po.artifacts.records import unseal, write_record
from d3po.run.folder import RESTORE
from d3po.run.opened import OpenRun
from d3po.run.session import Session
from d3po.run.train.states import moving_average_in, save_state

LR_PER_ROLLBACK = 0.5
"""The factor by which each rollback multiplies the learning rate of later rounds."""


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """A round that was undone."""

    round: int
    reason: str
    update: int = 0
    """The update number of the final checkpoint that restores the state before the round. 0 in records of older versions: any final checkpoint."""


def rollbacks(run: OpenRun) -> list[Rollback]:
    """The rollbacks of the run, in order.

    Raises:
        CorruptFileError: the file that keeps them is damaged.
    """
    path = run.folder.path / "rollbacks.json"
    if not path.exists():
        return []
    content = read_bytes(path, remedy=RESTORE)
    if content.startswith(b"["):  # older versions wrote a bare list without a hash
        content = b'{"rollbacks": ' + content + b"}"
    return [Rollback(**each) for each in unseal(content, str(path), remedy=RESTORE, needs=("rollbacks",))["rollbacks"]]


def is_undone(run: OpenRun, round: int) -> bool:
    """Whether the round's training was undone."""
    return _undone(run, round) is not None


def _undone(run: OpenRun, round: int) -> Rollback | None:
    return next((each for each in rollbacks(run) if each.round == round), None)


def lr_scale_of(run: OpenRun, round: int) -> float:
    """The factor on the learning rate with which the round is trained."""
    return LR_PER_ROLLBACK ** sum(each.round < round for each in rollbacks(run))


def roll_back(session: Session, round: int, reason: str) -> None:
    """Undo the round's training: record the rollback, and write a final checkpoint with the policy from before the round."""
    mine = [checkpoint.update for checkpoint in list_checkpoints(session.run.folder.checkpoints) if checkpoint.round == round]
    undone = Rollback(round=round, reason=reason, update=max(mine, default=0) + 1)
    write_record(session.run.folder.path / "rollbacks.json", {"rollbacks": [asdict(each) for each in [*rollbacks(session.run), undone]]})
    ensure_undone(session, round)
    session.run.narrator.say(f"round {round} is undone; the next begins from the policy before it, at half the learning rate: {reason}")


def ensure_undone(session: Session, round: int) -> bool:
    """Return whether the round was undone. If it was, make sure that its final checkpoint holds the state from before the round."""
    undone = _undone(session.run, round)
    if undone is None:
        return False
    finals = [
        checkpoint.update
        for checkpoint in list_checkpoints(session.run.folder.checkpoints)
        if (checkpoint.round, checkpoint.final) == (round, True)
    ]
    if not (undone.update in finals or (finals and not undone.update)):
        session.moved(None)
        session.load_round_weights(round)
        moving = moving_average_in(session.run.finals()[round - 1].load()[0]) if round else None
        save_state(session, round, undone.update or 1, final=True, moving=moving)
        session.moved(round + 1)
    return True
