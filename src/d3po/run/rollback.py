"""Going back: a round that a guard refused is undone, and the run goes on from the policy before it, at half the learning rate."""

import json
from dataclasses import asdict, dataclass

from d3po.run.states import moving_average_in, save_state
from d3po.run.workbench import Workbench
from d3po.storage.checkpoints import list_checkpoints
from d3po.storage.files import write_atomically

CAUTION = 0.5
"""What each rollback leaves of the learning rate."""


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """A round that was undone."""

    round: int
    reason: str


def rollbacks(bench: Workbench) -> list[Rollback]:
    """Those of the run, in order."""
    path = bench.folder.path / "rollbacks.json"
    return [Rollback(**record) for record in json.loads(path.read_text())] if path.exists() else []


def is_undone(bench: Workbench, round: int) -> bool:
    """Whether the round's training does not stand."""
    return any(each.round == round for each in rollbacks(bench))


def caution(bench: Workbench, round: int) -> float:
    """The share of the learning rate that the round is trained with."""
    return CAUTION ** sum(each.round < round for each in rollbacks(bench))


def roll_back(bench: Workbench, round: int, reason: str) -> None:
    """Undo the round's training: its newest final checkpoint is the policy that it began with."""
    mine = [checkpoint.update for checkpoint in list_checkpoints(bench.folder.checkpoints) if checkpoint.round == round]
    bench.moved(None)
    bench.stand_at(round)
    moving = moving_average_in(bench.finals()[round - 1].load()[0]) if round else None
    save_state(bench, round, max(mine, default=0) + 1, final=True, moving=moving)
    bench.moved(round + 1)
    records = [asdict(each) for each in [*rollbacks(bench), Rollback(round=round, reason=reason)]]
    write_atomically(bench.folder.path / "rollbacks.json", json.dumps(records, indent=1))
    bench.narrator.say(f"round {round} is undone; the next begins from the policy before it, at half the learning rate: {reason}")
