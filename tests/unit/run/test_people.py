"""Waiting for people: when there is enough to train on, which pairs are asked while they vote, and the page beside a run."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from d3po.errors import ConfigError, RunEndedError
from d3po.preferences.records import Answer, Asked
from d3po.run.feedback import page, people
from d3po.run.feedback.page import rating_page
from d3po.run.feedback.people import ask_people, questions_of
from d3po.run.opened import OpenRun
from tests.unit.run.conftest import OpenWith, said, say

HUMAN = {"feedback.source": "human"}
PAIRS: list[tuple[int, ...]] = [(1, 2), (1, 3), (2, 3), (4, 5), (4, 6), (5, 6)]
"""All that can be asked."""
TIE = Answer(outcome="tie")


@pytest.fixture
def while_waiting(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Each time the run waits, the next of these things happens; the list that it returns counts the waits."""

    def happen(*events: Callable[[], object]) -> list[int]:
        left, waits = iter(events), [0]

        def sleep(_: float) -> None:
            waits[0] += 1
            (next(left, None) or pytest.fail("it waits for something that never comes"))()

        monkeypatch.setattr(people, "time", SimpleNamespace(sleep=sleep))
        return waits

    return happen


def votes(run: OpenRun, round: int = 0) -> int | None:
    """How many votes training was given; None if it was given none yet."""
    batch = run.store.batches.votes(round)
    return None if batch is None else len(batch)


def voting(run: OpenRun, pairs: list[tuple[int, ...]], **how: Any) -> list[Callable[[], object]]:
    return [partial(say, run, *pair, **how) for pair in pairs]


@pytest.mark.parametrize(("settings", "waits"), [({}, 6), ({"feedback.quota": "2"}, 2), ({"feedback.quota": "99"}, 6)])
def test_a_round_is_trained_when_all_questions_or_the_quota_are_answered(
    open_with: OpenWith, while_waiting: Callable[..., list[int]], settings: dict[str, str], waits: int
) -> None:
    run = open_with(HUMAN | settings)
    waited = while_waiting(*voting(run, PAIRS))
    ask_people(run, 0)
    assert (waited, votes(run)) == ([waits], waits)
    assert f"round 0: people voting ━━━━━━━━━━ {waits}/{waits}" in said(run)
    ask_people(run, 0)
    assert [(entry.round, entry.body["message"]) for entry in run.store.journal.read(kind="phase")] == [(0, f"{waits} votes wanted")]
    assert (waited, len(run.store.questions.asked(0))) == ([waits], 6), "asked once"


def test_each_question_waits_for_as_many_people_as_were_asked_for(open_with: OpenWith, while_waiting: Callable[..., list[int]]) -> None:
    run = open_with(HUMAN | {"feedback.overlap": "2", "feedback.pairs_per_prompt": "1"})
    first, second = (question.images for question in questions_of(run, 0))
    waited = while_waiting(*voting(run, [first, second]), *voting(run, [second, first], who="bo"))
    ask_people(run, 0)
    assert (waited, votes(run)) == ([4], 4)


def test_votes_from_which_nothing_can_be_learnt_are_not_enough_in_the_first_round(
    open_with: OpenWith, while_waiting: Callable[..., list[int]]
) -> None:
    run = open_with(HUMAN | {"feedback.quota": "1"})
    waited = while_waiting(*voting(run, PAIRS[:2], answer=TIE), *voting(run, PAIRS[2:]))
    ask_people(run, 0)
    assert (waited, votes(run)) == ([3], 3)


def test_train_now_trains_on_what_there_is(open_with: OpenWith, while_waiting: Callable[..., list[int]]) -> None:
    run = open_with(HUMAN)
    owner = run.store.people.owner().id
    waited = while_waiting(lambda: run.store.journal.control("train_now", owner, round=0), *voting(run, PAIRS))
    ask_people(run, 0)
    assert (waited, votes(run)) == ([2], 1), "and of nothing, nothing is learnt"


def test_the_deadline_counts_from_when_the_round_was_first_put(
    open_with: OpenWith, while_waiting: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minute, of which half a minute passes at each wait, and the run is stopped after the first."""
    run = open_with(HUMAN | {"feedback.deadline_minutes": "1"})
    clock = [run.store.database.now()]
    monkeypatch.setattr(run.store.database, "now", lambda: clock[0])

    def half_a_minute() -> None:
        clock[0] += 30_000

    def stop() -> None:
        half_a_minute()
        raise KeyboardInterrupt

    while_waiting(stop)
    with pytest.raises(KeyboardInterrupt):
        ask_people(run, 0)
    say(run, 2, 1)
    waited = while_waiting(half_a_minute, half_a_minute, half_a_minute)
    ask_people(run, 0)
    assert (waited, votes(run)) == ([2], 1), "60 seconds are not yet past"


def test_a_run_that_is_stopped_while_it_waits_keeps_its_votes_for_later(
    open_with: OpenWith, while_waiting: Callable[..., list[int]]
) -> None:
    run = open_with(HUMAN)
    owner = run.store.people.owner().id
    while_waiting(*voting(run, PAIRS[:1]), lambda: run.store.journal.control("stop", owner))
    with pytest.raises(RunEndedError, match="stopped from the dashboard"):
        ask_people(run, 0)
    assert (votes(run), run.store.votes.count(round=0)) == (None, 1)


def test_pairs_are_chosen_while_people_vote(open_with: OpenWith, while_waiting: Callable[..., list[int]]) -> None:
    """Two questions of each prompt wait at a time; the third of each is put when one is answered."""
    run = open_with(HUMAN | {"feedback.choose": "adaptive", "feedback.pairs_per_prompt": "3"})
    put: list[int] = []

    def answer() -> None:
        asked = run.store.questions.asked(0)
        put.append(len(asked))
        answered = {vote.question for vote in run.store.votes.current(round=0)}
        open_ones: list[Asked] = [each for each in asked if each.id not in answered]
        say(run, *open_ones[0].images)

    while_waiting(*[answer] * 6)
    ask_people(run, 0)
    assert put[0] == 4
    assert (put[-1], votes(run)) == (6, 6)
    assert sorted(tuple(sorted(each.images)) for each in run.store.questions.asked(0)) == PAIRS


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Let the page be served by this shell script, which is given the arguments of Python; returns where it writes."""

    def put(script: str) -> Path:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\nexec 2>&1\ncd {tmp_path}\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(page, "sys", SimpleNamespace(executable=str(path)))
        return tmp_path / "told"

    return put


SERVED = 'echo "$*" > told; echo "a word before"; sleep 0.2; echo "rate at http://127.0.0.1:9"'


def test_the_page_is_served_as_long_as_it_is_needed(server: Callable[[str], Path], tmp_path: Path) -> None:
    told = server(f'trap "echo ended >> told; exit 0" TERM; {SERVED}; while :; do sleep 0.02; done')
    heard: list[str] = []
    with rating_page(tmp_path / "run", 9, heard.append):
        assert heard == ["a word before", "rate at http://127.0.0.1:9"]
        assert told.read_text() == f"-m d3po rate {tmp_path / 'run'} --port 9\n"
    assert told.read_text().endswith("\nended\n")
    assert len(heard) == 2, "that it was ended is no news"


def test_a_page_that_ends_by_itself_is_told_with_the_command_that_starts_it_again(server: Callable[[str], Path], tmp_path: Path) -> None:
    server(f"{SERVED}; echo out of files; exit 3")
    heard: list[str] = []
    with rating_page(tmp_path / "run", 9, heard.append):
        for _ in range(500):
            if len(heard) == 4:
                break
            time.sleep(0.01)
    assert heard[2:] == [
        "out of files",
        f"the server of the rating page ended unexpectedly (exit code 3); start it again with `d3po rate {tmp_path / 'run'}`",
    ]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('echo "error: port 9 is taken; choose another"', "^port 9 is taken; choose another$"),
        ("echo Traceback", "could not be served, so nobody can answer"),
    ],
)
def test_a_page_that_cannot_be_served_ends_the_run_before_it_waits(
    server: Callable[[str], Path], tmp_path: Path, script: str, words: str
) -> None:
    server(script)
    with pytest.raises(ConfigError, match=words), rating_page(tmp_path / "run", 9, lambda _: None):
        pytest.fail("it went on without a page")
