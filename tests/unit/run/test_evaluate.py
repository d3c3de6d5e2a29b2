"""What the dashboard asks of a run, and rounds that were undone: without a model."""

import threading

import pytest

from d3po.artifacts.records import write_record
from d3po.errors import RunEndedError
from d3po.run import control
from d3po.run.control import check_control
from d3po.run.train.rollback import is_undone, lr_scale_of, rollbacks
from tests.unit.run.conftest import OpenWith


def test_a_paused_run_waits_until_it_may_go_on(open_with: OpenWith, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "POLL_SECONDS", 0.01)
    run = open_with(sampled=False)
    owner = run.store.people.owner().id
    run.store.journal.control("pause", owner)
    waiting = threading.Thread(target=check_control, args=(run,), daemon=True)
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    run.store.journal.control("resume", owner)
    waiting.join(20)
    assert not waiting.is_alive()


def test_a_stopped_run_ends_with_a_word_on_how_it_goes_on(open_with: OpenWith) -> None:
    run = open_with(sampled=False)
    run.store.journal.control("stop", run.store.people.owner().id)
    with pytest.raises(RunEndedError, match=rf"stopped from the dashboard; `d3po run {run.folder.path}` continues from here"):
        check_control(run)


def test_each_undone_round_halves_the_learning_rate_of_later_ones(open_with: OpenWith) -> None:
    run = open_with(sampled=False)
    assert rollbacks(run) == []
    undone = [{"round": round, "reason": "the margin grew", "update": 3} for round in (1, 3)]
    write_record(run.folder.path / "rollbacks.json", {"rollbacks": undone})
    assert [is_undone(run, round) for round in range(5)] == [False, True, False, True, False]
    assert [lr_scale_of(run, round) for round in range(5)] == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_rollbacks_from_before_records_had_hashes_are_read(open_with: OpenWith) -> None:
    run = open_with(sampled=False)
    (run.folder.path / "rollbacks.json").write_text('[{"round": 2, "reason": "collapse"}]')
    assert [(each.round, each.update) for each in rollbacks(run)] == [(2, 0)]
