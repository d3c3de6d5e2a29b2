"""A run that asks people: it waits for their votes, trains on them, and obeys the dashboard."""

import json
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from d3po.errors import ConfigError, RunEndedError, RunFolderError
from d3po.library import Run
from d3po.preferences.records import Answer, Assigned, Cast
from d3po.run import control
from d3po.run.evaluate.phase import evaluate
from d3po.run.evaluate.report import write_report
from d3po.run.export.phase import export_result
from d3po.run.feedback import blind, people
from d3po.run.feedback.blind import ask_blind, blind_result
from d3po.run.feedback.exchange import make_gold
from d3po.run.feedback.labels import labels_of_round
from d3po.run.feedback.people import ask_people, questions_of
from d3po.run.folder import RunFolder
from d3po.run.loop import run_rounds
from d3po.run.opened import open_run
from d3po.run.sample.phase import sample_round
from d3po.run.session import Session
from d3po.store import Store
from tests.e2e.conftest import d3po

MakeRun = Callable[..., RunFolder]
HUMAN = {"feedback.source": '"human"', "rounds": "1", "training.epochs": "1"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (blind, people, control):
        monkeypatch.setattr(module, "POLL_SECONDS", 0.01)


def opened(folder: RunFolder) -> Session:
    return Session(open_run(folder))


def sampled(make_run: MakeRun, settings: dict[str, str] | None = None) -> Session:
    session = opened(make_run(settings=HUMAN | (settings or {})))
    sample_round(session, 0)
    return session


def prefer_larger_id(item: Assigned) -> Answer:
    ids = sorted(item.shown)
    if item.kind == "pair":
        return Answer(outcome="win", winner=ids[-1])
    if item.kind == "best_worst":
        return Answer(outcome="best_worst", values={ids[-1]: 1.0, ids[0]: -1.0})
    raise AssertionError(item.kind)


def vote(store: Store, count: int, answer: Callable[[Assigned], Answer] = prefer_larger_id, name: str = "ada") -> int:
    """A person who answers up to `count` questions; returns how many there were."""
    who = store.people.annotator(name, "human").id
    done = 0
    while done < count and (items := store.questions.lease(who, min(4, count - done))):
        for item in items:
            store.votes.cast(Cast(id=str(uuid.uuid4()), assignment=item.assignment, annotator=who, answer=answer(item), rt_ms=500))
            done += 1
    return done


def waiting(session: Session) -> threading.Thread:
    thread = threading.Thread(target=ask_people, args=(session.run, 0), daemon=True)
    thread.start()
    await_rating(session, 0, thread)
    return thread


def await_rating(session: Session, round: int, thread: threading.Thread) -> None:
    while session.run.journal.phase_began("rating", round) is None:
        assert thread.is_alive(), "it ended without asking"
        time.sleep(0.01)


def test_a_run_waits_for_every_answer_and_trains_on_them(make_run: MakeRun) -> None:
    folder = make_run(settings=HUMAN | {"feedback.ask": '"best_worst"', "feedback.overlap": "2", "evaluation.blind_questions": "0"})
    session = opened(folder)
    runner = threading.Thread(target=run_rounds, args=(session,), daemon=True)
    runner.start()
    await_rating(session, 0, runner)
    assert [vote(session.run.store, 100, name=name) for name in ("ada", "bo")] == [4, 4]
    runner.join(60)
    assert session.run.trained_rounds() == 1
    assert [len(v.images) for v in session.run.store.batches.votes(0) or []] == [3] * 8
    assert {e.body["phase"] for e in session.run.store.journal.read(kind="phase")} >= {
        "sampling",
        "rating",
        "training",
        "evaluating",
        "done",
    }
    page = folder.report.read_text()
    assert "Agreement between people" in page
    assert "<td>0</td><td>1.00 [1.00, 1.00]</td>" in page


def rated(session: Session) -> None:
    """The run goes to its end while somebody answers whatever is asked, always for the newer picture: of base and tuned, the tuned one."""
    runner = threading.Thread(target=run_rounds, args=(session,), daemon=True)
    runner.start()
    while runner.is_alive():
        vote(session.run.store, 1)
        runner.join(0.02)


def blind_votes(session: Session) -> int:
    return session.run.store.votes.count(purpose="blind")


def test_people_s_blind_test_is_the_headline_and_is_asked_once_for_each_result(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(settings=HUMAN | {"feedback.ask": '"best_worst"', "evaluation.blind_questions": "3"})
    session = opened(folder)
    rated(session)
    assert blind_votes(session) == 3
    said = "people preferred the tuned model to the base model 100 % of the time (95 % interval 0 to 100 %), from 3 blind answers"
    first, below, _ = capsys.readouterr().out.splitlines()[-3:]
    assert first == f"result after 1 rounds: {said}"
    assert below.startswith("measured on held-out prompts, by brightness: win rate ")
    page = folder.report.read_text()
    assert page.index("3 answers, 95 % interval 0 to 100 %") < page.index("over the base model, measured by <code>brightness</code>")
    phase = session.run.store.journal.last("phase")
    assert phase is not None
    assert phase.body["message"].startswith("People preferred the tuned model")
    card = export_result(session, folder.path / "export")[-1].read_text()
    assert card.index(said) < card.index("Measured by `brightness`, compared with the base model")
    session.close()

    session = opened(folder)
    rated(session)
    assert blind_votes(session) == 3, "what was answered is not asked again"
    session.close()

    folder.change({"rounds": "2", "evaluation.blind_between_rounds": "4"})
    session = opened(folder)
    rated(session)
    assert blind_votes(session) == 3 + 1 + 3, "the fourth about the first result, between the rounds; and a test of the second"
    assert {vote.purpose for round in (0, 1) for vote in session.run.store.batches.votes(round) or []} == {"train"}
    evaluated = evaluate(session, 2)
    by_people = blind_result(session.run, 2)
    assert by_people is not None
    assert (evaluated.people_answers, evaluated.people) == (3, by_people[0])


def test_a_run_of_people_that_began_before_there_were_blind_tests_goes_on(make_run: MakeRun) -> None:
    folder = make_run(settings=HUMAN)
    lines = folder.config_path.read_text().splitlines()
    folder.config_path.write_text("\n".join(line for line in lines if not line.startswith("blind_")))
    folder.mark_started(folder.config())
    before = json.loads(folder.started.read_text())
    assert not [key for key in before["evaluation"] if key.startswith("blind")]
    folder.change({"evaluation.blind_questions": "0"})
    assert folder.config().evaluation.blind_questions == 0


def test_a_run_for_people_is_made_for_a_number_of_clicks(tmp_path: Path) -> None:
    made = d3po("init", tmp_path / "mine", "--feedback", "human", "--clicks", "60")
    assert "2 rounds x 15 questions (best and worst of 4) x 2 clicks: 60 clicks" in made.stdout
    assert "20 blind questions" in made.stdout
    assert f"d3po run {tmp_path / 'mine'} --serve" in made.stdout
    with Run.create(tmp_path / "same", feedback="human", clicks=60, quiet=True) as run:
        assert run.config == RunFolder(path=tmp_path / "mine").config()
    for option in (("--feedback", "reward"), ("--feedback", "imported"), ()):
        refused = d3po("init", tmp_path / "other", *option, "--clicks", "60")
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert "which nobody clicks for" in refused.stderr
    with pytest.raises(ConfigError, match="clicks is 60, but feedback is 'reward'"):
        Run.create(tmp_path / "other", clicks=60, quiet=True)
    assert not (tmp_path / "other").exists()


def test_every_prompt_is_asked_about_once_before_any_is_asked_about_twice(make_run: MakeRun) -> None:
    session = sampled(make_run)
    prompts = {image.id: image.prompt_id for image in session.run.store.pictures.images(0)}
    questions = sorted(questions_of(session.run, 0), key=lambda q: q.priority)
    assert len(questions) == 4 * 3
    assert all(len({prompts[q.images[0]] for q in questions[i : i + 4]}) == 4 for i in (0, 4, 8))


def test_a_quota_ends_the_wait(make_run: MakeRun) -> None:
    session = sampled(make_run, {"feedback.quota": "3"})
    thread = waiting(session)
    vote(session.run.store, 3)
    thread.join(20)
    assert not thread.is_alive()
    assert len(session.run.store.batches.votes(0) or []) == 3
    assert vote(session.run.store, 5) == 0, "a closed round asks nothing more"


def test_a_later_round_of_which_all_answers_are_ties_is_passed_over(make_run: MakeRun) -> None:
    session = sampled(make_run)
    session.moved(1)  # as if the first round had been trained
    sample_round(session, 1)
    for round, answer in enumerate((prefer_larger_id, lambda _: Answer(outcome="tie"))):
        thread = threading.Thread(target=ask_people, args=(session.run, round), daemon=True)
        thread.start()
        await_rating(session, round, thread)
        assert vote(session.run.store, 100, answer) == 4 * 3
        thread.join(20)
        assert not thread.is_alive()
    assert {vote.answer.outcome for vote in session.run.store.batches.votes(1) or []} == {"tie"}


def test_pairs_are_chosen_while_people_vote(make_run: MakeRun) -> None:
    session = sampled(make_run, {"feedback.choose": '"adaptive"', "feedback.pairs_per_prompt": "2", "sampling.images_per_prompt": "4"})
    thread = waiting(session)
    until = time.monotonic() + 20
    while thread.is_alive() and time.monotonic() < until:
        vote(session.run.store, 1)
    thread.join(20)
    assert len(session.run.store.batches.votes(0) or []) == 4 * 2
    asked = session.run.store.questions.asked(0)
    assert len(asked) == 4 * 2
    assert all(question.at_random is not None for question in asked)


def test_how_people_are_asked_may_change_once_a_run_has_begun(make_run: MakeRun) -> None:
    folder = make_run(settings=HUMAN)
    folder.mark_started(folder.config())
    changed = folder.change({"feedback.pairs_per_prompt": "2", "feedback.choose": "adaptive", "feedback.overlap": "3"})
    assert changed.feedback.choose == folder.config().feedback.choose == "adaptive"


def test_train_now_ends_the_wait_once_something_is_preferred(make_run: MakeRun) -> None:
    session = sampled(make_run)
    thread = waiting(session)
    session.run.store.journal.control("train_now", session.run.store.people.owner().id, 0)
    vote(session.run.store, 1, lambda _: Answer(outcome="tie"))
    thread.join(0.3)
    assert thread.is_alive(), "ties alone teach nothing"
    vote(session.run.store, 1)
    thread.join(20)
    assert len(session.run.store.batches.votes(0) or []) == 2


def test_thumbs_up_alone_end_the_wait_of_what_learns_from_liked_pictures(make_run: MakeRun) -> None:
    session = sampled(make_run, {"objective.name": '"sft"', "feedback.ask": '"thumb"', "feedback.quota": "2"})
    thread = waiting(session)
    vote(session.run.store, 2, lambda _: Answer(outcome="up"))
    thread.join(20)
    assert not thread.is_alive()


def test_a_deadline_ends_the_wait(make_run: MakeRun) -> None:
    session = sampled(make_run, {"feedback.deadline_minutes": "0.002"})
    thread = waiting(session)
    vote(session.run.store, 1)
    thread.join(20)
    assert not thread.is_alive()


def test_stop_ends_a_run_and_the_same_command_goes_on(make_run: MakeRun) -> None:
    session = sampled(make_run)
    session.run.store.journal.control("stop", session.run.store.people.owner().id)
    with pytest.raises(RunEndedError, match="continues from here"):
        ask_people(session.run, 0)
    session.run.store.journal.control("resume", session.run.store.people.owner().id)
    thread = waiting(session)
    vote(session.run.store, 100)
    thread.join(20)
    assert len(session.run.store.batches.votes(0) or []) == 12


def test_a_pause_holds_the_run(make_run: MakeRun) -> None:
    session = sampled(make_run, {"feedback.quota": "1"})
    thread = waiting(session)
    owner = session.run.store.people.owner().id
    session.run.store.journal.control("pause", owner)
    time.sleep(0.1)
    vote(session.run.store, 1)
    thread.join(0.3)
    assert thread.is_alive()
    session.run.store.journal.control("resume", owner)
    thread.join(20)
    assert not thread.is_alive()


def test_votes_after_the_claim_change_nothing_that_training_sees(make_run: MakeRun) -> None:
    session = sampled(make_run, {"feedback.quota": "2"})
    who = session.run.store.people.annotator("ada", "human").id
    thread = waiting(session)
    late, *others = session.run.store.questions.lease(who, 3)
    for item in others:
        session.run.store.votes.cast(Cast(id=str(uuid.uuid4()), assignment=item.assignment, annotator=who, answer=prefer_larger_id(item)))
    thread.join(20)
    claimed = session.run.store.batches.votes(0)
    session.run.store.votes.cast(Cast(id=str(uuid.uuid4()), assignment=late.assignment, annotator=who, answer=prefer_larger_id(late)))
    ask_people(session.run, 0)
    assert session.run.store.batches.votes(0) == claimed
    assert session.run.store.votes.count(round=0) == 3, "the late vote is kept all the same"


def test_what_one_answered_can_be_asked_of_others_as_gold(make_run: MakeRun) -> None:
    session = sampled(make_run, {"feedback.overlap": "2"})
    session.run.store.questions.ask(questions_of(session.run, 0))
    vote(session.run.store, 5)
    assert make_gold(session.run.store, "ada", 3) == 3
    other = session.run.store.people.annotator("bo", "human").id
    asked = session.run.store.questions.lease(other, 8, gold_rate=0.5)
    assert sum(item.purpose == "gold" for item in asked) == 3
    expected = session.run.store.questions.expected()
    assert all(expected[item.question] == prefer_larger_id(item) for item in asked if item.purpose == "gold")
    with pytest.raises(RunFolderError, match="has no votes"):
        make_gold(session.run.store, "bo", 3)


def test_annotators_who_contradict_everybody_count_less(make_run: MakeRun) -> None:
    session = sampled(make_run, {"feedback.overlap": "4"})
    session.run.store.questions.ask(questions_of(session.run, 0))
    for name in ("ada", "bo", "cleo"):
        vote(session.run.store, 100, name=name)
    vote(session.run.store, 100, lambda item: Answer(outcome="win", winner=min(item.shown)), name="contrary")
    targets = {c.target for c in labels_of_round(session.run, 0).comparisons}
    assert targets == {0.0}, "image_a is the smaller id, and the one who always prefers it is not believed"


def test_a_blind_test_counts_for_the_tuned_picture_whichever_side_it_was_on(make_run: MakeRun) -> None:
    folder = make_run(settings={"rounds": "1"})
    session = opened(folder)
    run_rounds(session)
    assert blind_result(session.run, 1) is None
    assert ask_blind(session.run, 1, overlap=1) == 2 * 2
    policies = {p.id: p.policy for name in ("held-out/base", "held-out/round-000") for p in session.run.store.pictures.series(name)}
    tuned = lambda item: next(i for i in item.shown if policies[i] != "base")  # noqa: E731
    vote(session.run.store, 3, lambda item: Answer(outcome="win", winner=tuned(item)))
    vote(session.run.store, 1, lambda _: Answer(outcome="tie"))
    result = blind_result(session.run, 1)
    assert result is not None
    assert result[1] == 4
    assert result[0].value == pytest.approx(3.5 / 4)
    page = write_report(session.run, 1, None).read_text()
    assert "blind win rate by people, 4 votes" in page
    assert "Agreement between people" not in page, "a measured judge has nobody to agree with"


def test_a_report_hides_the_databases_password(make_run: MakeRun) -> None:
    folder = make_run(settings={"rounds": "1"})
    session = opened(folder)
    run_rounds(session)
    folder.config_path.write_text(folder.config_path.read_text().replace('database = ""', 'database = "postgresql://ada:s3cret@host/name"'))
    page = write_report(session.run, 1, None).read_text()
    assert "s3cret" not in page
    assert "postgresql://ada:***@host/name" in page
