"""A round's training: what it leaves, how it goes on in the middle, what ends it, and how it is undone."""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from d3po.artifacts.checkpoints import CheckpointFile, list_checkpoints
from d3po.artifacts.records import write_record
from d3po.errors import CorruptFileError, RunEndedError, TrainingStoppedError
from d3po.preferences.records import Answer
from d3po.run.control import check_control
from d3po.run.feedback.measured import compare_round
from d3po.run.folder import RunFolder
from d3po.run.opened import OpenRun, open_run
from d3po.run.sample.phase import sample_round
from d3po.run.session import Session
from d3po.run.train.phase import MetricsLog, train_round
from d3po.run.train.rollback import is_undone, roll_back, rollbacks
from d3po.run.train.states import moving_average_in, save_state
from d3po.training.trainer import Update
from tests.unit.run.conftest import SessionWith, said, say
from tests.unit.run.toy import policy_of

SETTINGS = {
    "training.epochs": "2",
    "training.checkpoint_every": "1",
    "training.learning_rate": "1e-2",
    "objective.d3po.beta": "5",
    "objective.d3po.clip": "none",
}
UPDATES = 4
"""Epochs times prompts."""


def judged(session: Session, round: int = 0) -> Session:
    compare_round(session.run, round)
    return session


def final(run: OpenRun, round: int = 0) -> CheckpointFile:
    return run.finals()[round]


def lines(run: OpenRun) -> list[tuple[int, int]]:
    """Round and update of each line of metrics.jsonl, as they stand there."""
    return [(line["round"], line["update"]) for line in map(json.loads, run.folder.metrics.read_text().splitlines())]


def stopping_at(update: int, action: Callable[[OpenRun], object]) -> Callable[[OpenRun], Any]:
    """What asks the dashboard, and does this after so many updates."""
    calls = iter(range(update))

    def asked(run: OpenRun) -> Any:
        if next(calls, None) is None:
            action(run)
        return check_control(run)

    return asked


def told_to_stop(run: OpenRun) -> None:
    run.store.journal.control("stop", run.store.people.owner().id)


def test_training_moves_the_policy_towards_what_won(session_with: SessionWith) -> None:
    session = judged(session_with(SETTINGS))
    train_round(session, 0)
    metrics = session.run.folder.read_metrics()
    assert [(line["epoch"], line["update"]) for line in metrics] == [(0, 0), (0, 1), (1, 2), (1, 3)]
    assert metrics[0]["margin"] == pytest.approx(0, abs=1e-6), "the policy is the reference still"
    assert metrics[-1]["margin"] > 0
    assert policy_of(session).state()["shift"].mean() > 0, "the reward is brightness"
    assert final(session.run).load()[0]["policy.shift"].tolist() == policy_of(session).state()["shift"].tolist()
    assert "round 0: training" in said(session.run)
    assert "6 pairs" in said(session.run)
    entries = [entry.body for entry in session.run.store.journal.read(kind="update")]
    assert [(entry["number"], entry["of"], entry["loss"]) for entry in entries] == [
        (i, UPDATES, metrics[i]["loss"]) for i in range(UPDATES)
    ]


def test_a_trained_round_is_left_as_it_is(session_with: SessionWith) -> None:
    session = judged(session_with(SETTINGS))
    train_round(session, 0)
    before, forwards = final(session.run).path.stat().st_mtime_ns, policy_of(session).network.forwards
    train_round(session, 0)
    assert (final(session.run).path.stat().st_mtime_ns, policy_of(session).network.forwards) == (before, forwards)


def test_a_round_that_was_stopped_goes_on_from_its_newest_checkpoint_and_ends_with_the_same_bytes(
    session_with: SessionWith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = judged(session_with(SETTINGS | {"training.checkpoint_every": "2"}))
    shutil.copytree(session.run.folder.path, tmp_path / "straight", ignore=shutil.ignore_patterns("*.lock"))
    with closing(open_run(RunFolder(path=tmp_path / "straight"), session.run.narrator)) as straight:
        train_round(Session(straight), 0)
    with monkeypatch.context() as patch:
        patch.setattr("d3po.run.train.phase.check_control", stopping_at(3, told_to_stop))
        with pytest.raises(RunEndedError, match="stopped from the dashboard"):
            train_round(session, 0)
    assert lines(session.run) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    kept = list_checkpoints(session.run.folder.checkpoints)[-1]
    assert (kept.update, kept.final) == (2, False)
    session.run.store.journal.control("resume", session.run.store.people.owner().id)
    with closing(open_run(session.run.folder, session.run.narrator)) as run:
        train_round(resumed := Session(run), 0)
        calls = policy_of(resumed).network.calls
        assert sum(calls) == (UPDATES - kept.update) * 3 * 3, "images of a prompt, steps with a density"
        (mine, about), (theirs, what) = final(run).load(), final(straight).load()
        assert (about, mine.keys()) == (what, theirs.keys())
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
        assert run.folder.metrics.read_bytes() == straight.folder.metrics.read_bytes()
    assert [c.final for c in list_checkpoints(run.folder.checkpoints)] == [True]


def test_a_damaged_checkpoint_is_named_and_without_it_training_begins_before(
    session_with: SessionWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = judged(session_with(SETTINGS))
    monkeypatch.setattr("d3po.run.train.phase.check_control", stopping_at(3, told_to_stop))
    with pytest.raises(RunEndedError):
        train_round(session, 0)
    monkeypatch.undo()
    session.run.store.journal.control("resume", session.run.store.people.owner().id)
    newest = list_checkpoints(session.run.folder.checkpoints)[-1]
    newest.path.write_bytes(newest.path.read_bytes()[:-1] + b"?")
    with pytest.raises(CorruptFileError, match=r"update-000003-.* is damaged.*delete the file to continue from the checkpoint before"):
        train_round(session, 0)
    newest.path.unlink()
    train_round(session, 0)
    assert lines(session.run) == [(0, update) for update in range(UPDATES)]


@pytest.mark.parametrize(("action", "stops"), [("stop", True), ("warn", False)])
def test_a_guard_stops_the_round_or_only_warns(session_with: SessionWith, action: str, stops: bool) -> None:
    session = judged(session_with(SETTINGS | {"guards.action": action, "guards.max_kl": "1e-9"}))
    if stops:
        with pytest.raises(TrainingStoppedError, match=r"KL to the reference is .*, above guards\.max_kl = 1e-09"):
            train_round(session, 0)
    else:
        train_round(session, 0)
        assert "warning: KL to the reference is" in said(session.run)
    assert session.run.trained_rounds() == (0 if stops else 1)
    alarms = [(entry.round, entry.body["guard"], entry.body["stops"]) for entry in session.run.store.journal.read(kind="alarm")]
    assert set(alarms) == {(0, "kl", stops)}


def test_a_later_round_whose_pictures_are_all_alike_trains_nothing_and_counts_as_trained(session_with: SessionWith) -> None:
    session = session_with(SETTINGS | {"feedback.source": "human"})
    say(session.run, 1, 2)
    train_round(session, 0)
    sample_round(session, 1)
    say(session.run, 7, 8, answer=Answer(outcome="tie"), round=1)
    train_round(session, 1)
    assert "round 1: all pictures were rated alike, so nothing is trained in this round" in said(session.run)
    first, second = (final(session.run, round).load()[0]["policy.shift"] for round in (0, 1))
    assert torch.equal(first, second)
    assert {line["round"] for line in session.run.folder.read_metrics()} == {0}


def test_a_moving_reference_is_a_part_of_each_rounds_end(session_with: SessionWith) -> None:
    """With a decay of 0.75: three quarters of where the round began, which is 0, and a quarter of where it ended."""
    session = judged(session_with(SETTINGS | {"objective.reference": "ema", "objective.reference_decay": "0.75"}))
    train_round(session, 0)
    tensors, _ = final(session.run).load()
    moving = moving_average_in(tensors)
    assert moving.keys() == {"shift"}
    assert torch.allclose(moving["shift"], tensors["policy.shift"] / 4)
    sample_round(session, 1)
    train_round(judged(session, 1), 1)
    later, _ = final(session.run, 1).load()
    assert torch.allclose(moving_average_in(later)["shift"], 0.75 * moving["shift"] + 0.25 * later["policy.shift"])


def test_a_checkpoint_says_what_it_is_of(session_with: SessionWith) -> None:
    session = session_with({"seed": "7"}, sampled=False)
    policy_of(session).move(0.5)
    save_state(session, 2, 9, final=False, moving={"shift": torch.ones(3)})
    (kept,) = list_checkpoints(session.run.folder.checkpoints)
    tensors, metadata = kept.load()
    assert (kept.round, kept.update, kept.final) == (2, 9, False)
    assert metadata == {"round": "2", "update": "9", "seed": "7", "model": '"toy"'}
    assert tensors["policy.shift"].tolist() == [0.5] * 3
    assert moving_average_in(tensors)["shift"].tolist() == [1.0] * 3


def test_an_undone_round_ends_where_it_began_and_later_ones_learn_at_half_the_rate(session_with: SessionWith) -> None:
    session = judged(session_with(SETTINGS))
    train_round(session, 0)
    trained = final(session.run).load()[0]["policy.shift"]
    roll_back(session, 0, "it went wrong")
    assert (is_undone(session.run, 0), rollbacks(session.run)[0].reason) == (True, "it went wrong")
    assert "round 0 is undone; the next begins from the policy before it, at half the learning rate: it went wrong" in said(session.run)
    assert (trained != 0).all()
    assert final(session.run).load()[0]["policy.shift"].tolist() == [0, 0, 0]
    train_round(session, 0)
    sample_round(session, 1)
    assert torch.equal(policy_of(session).state()["shift"], torch.zeros(3))
    train_round(judged(session, 1), 1)
    rates = {line["round"]: line["learning_rate"] for line in session.run.folder.read_metrics()}
    assert rates == {0: 1e-2, 1: 5e-3}


def test_a_round_that_was_undone_before_its_state_was_written_is_so_when_it_is_next_met(session_with: SessionWith) -> None:
    session = judged(session_with(SETTINGS))
    undone = {"round": 0, "reason": "killed in between", "update": UPDATES + 1}
    train_round(session, 0)
    write_record(session.run.folder.path / "rollbacks.json", {"rollbacks": [undone]})
    train_round(session, 0)
    assert (final(session.run).update, final(session.run).load()[0]["policy.shift"].tolist()) == (UPDATES + 1, [0, 0, 0])


class Listener:
    """Remembers what is logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []

    def log(self, values: dict[str, float], step: int) -> None:
        self.lines.append((step, values))

    def finish(self) -> None:
        pass


def update(round: int, number: int) -> Update:
    return Update(round=round, number=number, epoch=0, groups=[0], steps=torch.tensor([0]))


def written(run: OpenRun, round: int, numbers: range) -> MetricsLog:
    log = MetricsLog(run, round, numbers.start)
    with log:
        for number in numbers:
            log.write(update(round, number), {"loss": float(10 * round + number)})
    return log


def test_lines_past_the_checkpoint_are_written_again_and_later_rounds_stay(session_with: SessionWith) -> None:
    run = session_with(sampled=False).run
    run.__dict__["wandb"] = listener = Listener()
    written(run, 0, range(3))
    written(run, 1, range(2))
    again = written(run, 0, range(1, 3))
    assert lines(run) == [(0, 0), (1, 0), (1, 1), (0, 1), (0, 2)]
    assert [line["loss"] for line in again.metrics] == [0, 1, 2], "the whole round, for the guards that look back on it"
    assert [line["round"] for line in run.folder.read_metrics()] == [0, 0, 0, 1, 1]
    assert listener.lines[-3:] == [(4, {"train/loss": 11.0}), (1, {"train/loss": 1.0}), (2, {"train/loss": 2.0})]


def test_events_go_to_tensorboard_where_it_is_on(session_with: SessionWith) -> None:
    run = session_with({"tracking.tensorboard": "true"}, sampled=False).run
    written(run, 0, range(2))
    (events,) = (run.folder.path / "tensorboard").iterdir()
    assert events.read_bytes().count(b"train/loss") == 2
