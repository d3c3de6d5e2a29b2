"""The blind test: what is asked, how long it is waited for, and what the answers say; without a model."""

import threading
import time
import uuid
from collections.abc import Callable, Sequence

import pytest

from d3po.errors import RunEndedError, RunFolderError
from d3po.preferences.records import Answer, Assigned, Cast, NewQuestion
from d3po.run import control
from d3po.run.feedback import blind, people
from d3po.run.feedback.blind import ask_blind, blind_result, hold_blind_test, people_say
from d3po.run.feedback.people import ask_people
from d3po.run.folder import series_of
from d3po.run.opened import OpenRun
from d3po.store.pictures import NewPicture
from tests.unit.run.conftest import OpenWith, grey

PROMPT = "a bee"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (blind, people, control):
        monkeypatch.setattr(module, "POLL_SECONDS", 0.01)


def evaluated(run: OpenRun, *, labels: Sequence[str] = ("base", "round-000"), prompts: Sequence[str] = (PROMPT,)) -> dict[str, list[int]]:
    """Two pictures of each held-out prompt by each of the policies; their ids."""
    ids: dict[str, list[int]] = {}
    for label in labels:
        files = [grey(run, f"{label}-{place}", 90) for place in range(2 * len(prompts))]
        known = run.store.pictures.add_prompts(list(prompts))
        pictures = [NewPicture(prompt=known[i // 2], number=i % 2, path=path, sha256=digest) for i, (path, digest) in enumerate(files)]
        whose = {"origin": "evaluation", "model": "emoji", "policy": label, "seed": 0}
        ids[label] = run.store.pictures.add_pictures(series=series_of(label), pictures=pictures, **whose)  # pyright: ignore[reportArgumentType]
        run.folder.evaluation(label).parent.mkdir(exist_ok=True)
        run.folder.evaluation(label).write_text("{}")
    return ids


def answer(run: OpenRun, count: int, choose: Callable[[Assigned], Answer]) -> list[Assigned]:
    """Somebody answers up to `count` questions; those there were."""
    who = run.store.people.annotator("ada", "human").id
    answered: list[Assigned] = []
    while len(answered) < count and (items := run.store.questions.lease(who, 1)):
        run.store.votes.cast(Cast(id=str(uuid.uuid4()), assignment=items[0].assignment, annotator=who, answer=choose(items[0])))
        answered += items
    return answered


def larger_id(item: Assigned) -> Answer:
    """Of a base and a tuned picture, the tuned one, which was recorded later."""
    return Answer(outcome="win", winner=max(item.shown))


def held(run: OpenRun, rounds: int = 1) -> threading.Thread:
    """A blind test that has been put and is waited for."""
    thread = threading.Thread(target=hold_blind_test, args=(run, rounds), daemon=True)
    thread.start()
    while run.journal.phase_began("blind test", rounds - 1) is None:
        assert thread.is_alive(), "it ended without asking"
        time.sleep(0.01)
    return thread


def ended(thread: threading.Thread) -> bool:
    thread.join(20)
    return not thread.is_alive()


def phases(run: OpenRun) -> list[object]:
    return [entry.body["phase"] for entry in run.store.journal.read(kind="phase")]


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
    judged = [(NewQuestion(kind="pair", purpose="blind", images=images, round=None), said) for images, said in answers.items()]
    run.store.votes.record_judgements(who.id, judged)
    interval, votes = blind_result(run, 1) or pytest.fail("there are votes")
    assert (interval.value, votes) == (0.75, 2)


def test_few_answers_are_told_with_their_number_and_a_wide_interval(open_with: OpenWith) -> None:
    run = open_with({"evaluation.blind_questions": "4"})
    evaluated(run, prompts=["a bee", "an ant", "an owl", "a hen"])
    waiting = held(run)
    answer(run, 4, larger_id)
    assert ended(waiting)
    interval, votes = blind_result(run, 1) or pytest.fail("there are votes")
    assert (interval.value, interval.high) == (1, 1)
    assert interval.low == pytest.approx(0.510, abs=0.001), "Wilson's interval for 4 of 4, 1 / (1 + 1.96^2 / 4)"
    assert people_say(interval, votes) == (
        "people preferred the tuned model to the base model 100 % of the time (95 % interval 51 to 100 %), from 4 blind answers"
    )
    assert people_say(None, 0) == "nobody has compared the tuned model blind with the base model"


def test_every_held_out_prompt_is_asked_about_once_before_any_is_asked_about_twice(open_with: OpenWith) -> None:
    run = open_with({"evaluation.blind_questions": "3"})
    evaluated(run, prompts=["a bee", "an ant", "an owl"])
    waiting = held(run)
    assert {item.prompt for item in answer(run, 100, larger_id)} == {"a bee", "an ant", "an owl"}
    assert ended(waiting)


def test_a_test_that_was_answered_is_told_to_the_dashboard_and_not_asked_again(open_with: OpenWith) -> None:
    run = open_with()
    evaluated(run)
    waiting = held(run)
    answer(run, 1, larger_id)
    waiting.join(0.2)
    assert waiting.is_alive(), "one of two is open"
    answer(run, 1, lambda _: Answer(outcome="tie"))
    assert ended(waiting)
    told = [entry for entry in run.store.journal.read(kind="evaluation") if "people" in entry.body]
    assert [(entry.round, entry.body["rounds"], entry.body["people"]["value"], entry.body["people_answers"]) for entry in told] == [
        (0, 1, 1.0, 1),
        (0, 1, 0.75, 2),
    ]
    hold_blind_test(run, 1)
    assert phases(run) == ["blind test"]


def test_a_later_policy_is_tested_anew(open_with: OpenWith) -> None:
    run = open_with()
    evaluated(run, labels=("base", "round-000", "round-001"))
    for rounds in (1, 2):
        waiting = held(run, rounds)
        assert len(answer(run, 100, larger_id)) == 2
        assert ended(waiting)
    assert phases(run) == ["blind test", "blind test"]


def test_a_test_that_somebody_ended_is_over_with_the_answers_it_has(open_with: OpenWith) -> None:
    run = open_with()
    evaluated(run)
    waiting = held(run)
    answer(run, 1, larger_id)
    run.store.questions.close_blind()
    assert ended(waiting)
    assert (blind_result(run, 1) or pytest.fail("there is a vote"))[1] == 1
    hold_blind_test(run, 1)
    assert phases(run) == ["blind test"]


def test_a_resumed_test_goes_on_and_one_that_was_ended_meanwhile_does_not(open_with: OpenWith) -> None:
    run = open_with()
    owner = run.store.people.owner().id
    evaluated(run)
    answered = 0
    for last in (False, True):
        run.store.journal.control("stop", owner)
        with pytest.raises(RunEndedError):
            hold_blind_test(run, 1)
        run.store.journal.control("resume", owner)
        if last:
            run.store.questions.close_blind()
        else:
            answered += len(answer(run, 1, larger_id))
    hold_blind_test(run, 1)
    assert answered == 1
    assert answer(run, 1, larger_id) == []


def test_a_deadline_ends_the_test(open_with: OpenWith) -> None:
    run = open_with({"feedback.deadline_minutes": "0.001"})
    evaluated(run)
    hold_blind_test(run, 1)
    assert blind_result(run, 1) is None
    assert answer(run, 1, larger_id) == []


def test_no_test_is_asked_of_the_base_model_or_where_none_is_wanted(open_with: OpenWith) -> None:
    run = open_with({"evaluation.blind_questions": "0", "evaluation.blind_between_rounds": "0", "feedback.quota": "1"})
    evaluated(run)
    hold_blind_test(run, 1)
    hold_blind_test(run, 0)
    assert phases(run) == []
    assert [item.purpose for item in answers_of_a_round(run, 1)] == ["train"]


def answers_of_a_round(run: OpenRun, count: int) -> list[Assigned]:
    """The first questions of a round that is put in a run whose policy after one round is tested; as many answers end it."""
    waiting = threading.Thread(target=ask_people, args=(run, 0), kwargs={"tested": 1}, daemon=True)
    waiting.start()
    while run.journal.phase_began("rating", 0) is None:
        assert waiting.is_alive()
        time.sleep(0.01)
    asked = answer(run, count, larger_id)
    assert ended(waiting)
    return asked


def test_a_few_blind_questions_are_mixed_into_a_round_and_neither_counted_nor_trained_on(open_with: OpenWith) -> None:
    run = open_with({"feedback.source": "human", "evaluation.blind_between_rounds": "2", "feedback.quota": "4"})
    evaluated(run, prompts=["a bee", "an ant", "an owl"])
    purposes = [item.purpose for item in answers_of_a_round(run, 6)]
    assert purposes.count("train") == 4
    assert purposes.count("blind") == 2
    assert purposes[-1] == "train", "they stand among the others"
    assert {vote.purpose for vote in run.store.batches.votes(0) or []} == {"train"}
    assert (blind_result(run, 1) or pytest.fail("there are votes"))[1] == 2


def test_a_round_that_ends_early_leaves_no_blind_question_behind(open_with: OpenWith) -> None:
    run = open_with({"feedback.source": "human", "evaluation.blind_between_rounds": "2", "feedback.quota": "1"})
    evaluated(run)
    who = run.store.people.annotator("bo", "human")
    judged = NewQuestion(kind="pair", purpose="train", images=(1, 2), round=0), Answer(outcome="win", winner=2)
    run.store.votes.record_judgements(who.id, [judged])
    ask_people(run, 0, tested=1)
    assert answer(run, 1, larger_id) == []
