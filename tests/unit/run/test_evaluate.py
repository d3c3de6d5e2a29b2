"""The blind test, and what the dashboard asks of a run: without a model."""

import threading

import pytest

from d3po.artifacts.records import write_record
from d3po.errors import RunEndedError, RunFolderError
from d3po.preferences.records import Answer, NewQuestion
from d3po.run import control
from d3po.run.control import check_control
from d3po.run.evaluate.blind import ask_blind, blind_result
from d3po.run.evaluate.phase import series_of
from d3po.run.opened import OpenRun
from d3po.run.train.rollback import is_undone, lr_scale_of, rollbacks
from d3po.store.pictures import NewPicture
from tests.unit.run.conftest import OpenWith, grey


def evaluated(run: OpenRun) -> dict[str, list[int]]:
    """Two pictures each of the base model and of the first round's, of one held-out prompt; their ids."""
    (prompt,) = run.store.pictures.add_prompts(["a bee"])
    ids: dict[str, list[int]] = {}
    for label in ("base", "round-000"):
        files = [grey(run, f"{label}-{place}", 90) for place in range(2)]
        pictures = [NewPicture(prompt=prompt, number=i, path=path, sha256=digest) for i, (path, digest) in enumerate(files)]
        ids[label] = run.store.pictures.add_pictures(
            series=series_of(label), pictures=pictures, origin="evaluation", model="emoji", policy=label, seed=0
        )
    run.folder.evaluation("round-000").parent.mkdir(exist_ok=True)
    run.folder.evaluation("round-000").write_text("{}")
    return ids


def test_the_blind_test_puts_each_tuned_picture_against_another_noise_s_base_picture(open_with: OpenWith) -> None:
    run = open_with()
    ids = evaluated(run)
    assert ask_blind(run, 1, overlap=2) == 2
    who = run.store.people.annotator("ada", "human")
    put = {tuple(sorted(item.shown)) for item in run.store.questions.lease(who.id, 4)}
    (base_0, base_1), (tuned_0, tuned_1) = ids["base"], ids["round-000"]
    assert put == {(base_1, tuned_0), (base_0, tuned_1)}


def test_the_blind_test_needs_an_evaluated_round(open_with: OpenWith) -> None:
    run = open_with()
    for rounds in (0, 1):
        with pytest.raises(RunFolderError, match="no evaluated tuned model to test"):
            ask_blind(run, rounds, overlap=1)


def test_the_blind_win_rate_counts_a_tie_as_half_and_a_skip_as_nothing(open_with: OpenWith) -> None:
    run = open_with()
    (base_0, base_1), (tuned_0, tuned_1) = evaluated(run).values()
    assert blind_result(run, 1) is None
    answers = {
        (base_1, tuned_0): Answer(outcome="win", winner=tuned_0),
        (base_0, tuned_1): Answer(outcome="tie"),
        (base_0, tuned_0): Answer(outcome="skip"),
    }
    who = run.store.people.annotator("ada", "human")
    judged = [(NewQuestion(kind="pair", purpose="blind", images=images, round=None), answer) for images, answer in answers.items()]
    run.store.votes.record_judgements(who.id, judged)
    interval, votes = blind_result(run, 1) or pytest.fail("there are votes")
    assert (interval.value, votes) == (0.75, 2)


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
