"""The blind test: people compare the base model's pictures with the tuned model's on held-out prompts, without knowing which is which.

A run that people judge asks it after the last round, and a few of its questions in each later round.
"""

import random
import time
from collections import defaultdict
from collections.abc import Collection
from dataclasses import asdict, replace

import numpy as np

from d3po.errors import RunFolderError
from d3po.evaluation.win_rate import Interval, mean_interval
from d3po.preferences.records import Answer, NewQuestion
from d3po.run.control import check_control
from d3po.run.feedback.measured import ids_by_prompt
from d3po.run.folder import BASE, label_of, series_of
from d3po.run.opened import OpenRun

POLL_SECONDS = 1.0
CREDIT = {"tie": 0.5, "both_bad": 0.5}
"""The share of a win that an answer without a winner gives to the tuned picture. Skips and flags are not counted."""


def ask_blind(run: OpenRun, rounds: int, *, overlap: int) -> int:
    """Ask the questions of the test, and return how many there are: every tuned picture against a base picture of its prompt from other noise.

    Args:
        run: the open run.
        rounds: the number of rounds of training behind the tested policy.
        overlap: how many people answer each question.

    Raises:
        RunFolderError: the policy after `rounds` rounds is not evaluated, or it is the base model.
    """
    if rounds == 0 or not run.folder.evaluation(label_of(rounds)).exists():
        raise RunFolderError(f"{run.folder.path} has no evaluated tuned model to test; make one with `d3po run {run.folder.path}`")
    return len(run.store.questions.ask(_questions(run, rounds, overlap=overlap)))


def hold_blind_test(run: OpenRun, rounds: int) -> None:
    """Ask `evaluation.blind_questions` about the policy after `rounds` rounds, and wait for the answers. Each policy is tested once.

    The wait ends when all questions are answered, when a person ends the test, or after `feedback.deadline_minutes`.

    Raises:
        RunEndedError: a person ended the run from the dashboard.
    """
    questions = _questions(run, rounds, overlap=run.config.feedback.overlap)[: run.config.evaluation.blind_questions] if rounds else []
    if not questions:
        return
    begun = run.journal.phase_began("blind test", rounds - 1)
    ids = run.store.questions.ask(questions) if begun is None else run.store.questions.known(questions)
    if not (left := run.store.questions.awaited(ids)):
        return
    run.journal.phase("blind test", rounds - 1, f"{len(ids)} questions: base or tuned?")
    opened, told = begun or run.store.database.now(), 0
    with run.narrator.bar("blind test", total=left) as bar:
        while left and not is_late(run, opened):
            check_control(run)
            time.sleep(POLL_SECONDS)
            before, left = left, run.store.questions.awaited(ids)
            told = tell_people(run, rounds, told)
            bar.advance(before - left, f"answer, or end it, at the page of `d3po rate {run.folder.path}`" if left else "")
    run.store.questions.close_blind()
    run.folder.remember(run.store)
    run.journal.forget()


def ask_between(run: OpenRun, round: int, rounds: int, *, last: float) -> int:
    """Mix `evaluation.blind_between_rounds` questions about a policy into a round's questions, and return how many there are.

    Args:
        run: the open run.
        round: the round whose questions they are mixed into.
        rounds: the number of rounds of training behind the tested policy.
        last: the priority of the last question that the round waits for. The blind questions are spread evenly before it.
    """
    count = run.config.evaluation.blind_between_rounds
    questions = _questions(run, rounds, overlap=run.config.feedback.overlap)[:count] if rounds else []
    spread = [replace(each, round=round, priority=last * (i + 0.5) / len(questions)) for i, each in enumerate(questions)]
    return len(run.store.questions.ask(spread))


def tell_people(run: OpenRun, rounds: int, told: int) -> int:
    """Write the blind result of the policy after `rounds` rounds to the journal if the number of blind votes is no longer `told`; returns that number."""
    votes = run.store.votes.count(purpose="blind")
    if votes != told and (result := blind_result(run, rounds)):
        run.journal.forget()
        run.journal.write("evaluation", rounds - 1, rounds=rounds, people=asdict(result[0]), people_answers=result[1])
    return votes


def is_late(run: OpenRun, opened: int) -> bool:
    """Whether `feedback.deadline_minutes` are over since `opened`, in ms since 1970."""
    minutes = run.config.feedback.deadline_minutes
    return minutes > 0 and run.store.database.now() - opened > minutes * 60_000


def blind_result(run: OpenRun, rounds: int) -> tuple[Interval, int] | None:
    """The win rate of the policy after `rounds` rounds over the base model in people's votes, and the number of votes. None without votes."""
    tuned = {picture.id for picture in run.store.pictures.series(series_of(label_of(rounds)))} if rounds else set[int]()
    by_prompt: dict[int, list[float]] = defaultdict(list)
    questions: set[int] = set()
    for vote in run.store.votes.current(purpose="blind"):
        credit = _credit(vote.answer, tuned)
        if credit is not None and tuned & set(vote.images):
            by_prompt[vote.prompt].append(credit)
            questions.add(vote.question)
    if not by_prompt:
        return None
    rates = np.array([sum(credits) / len(credits) for credits in by_prompt.values()])
    return mean_interval(rates, comparisons=len(questions)), sum(map(len, by_prompt.values()))


def people_say(people: Interval | None, answers: int) -> str:
    """The result of a blind test in one sentence, with its interval and the number of answers."""
    if people is None:
        return "nobody has compared the tuned model blind with the base model"
    ends = f"95 % interval {100 * people.low:.0f} to {100 * people.high:.0f} %"
    return (
        f"people preferred the tuned model to the base model {100 * people.value:.0f} % of the time ({ends}), "
        f"from {answers} blind answer{'s' * (answers != 1)}"
    )


def _questions(run: OpenRun, rounds: int, *, overlap: int) -> list[NewQuestion]:
    """Every tuned picture against a base picture from other noise; each prompt once before any prompt twice, in an order drawn for the policy.

    Empty if the policy has no pictures yet.
    """
    base, tuned = (ids_by_prompt(run.store.pictures.series(series_of(label))) for label in (BASE, label_of(rounds)))
    order = random.Random(f"{run.config.seed}/blind/{rounds}").sample(sorted(tuned), len(tuned))
    pairs = [
        (base[prompt][(i + 1) % len(base[prompt])], tuned[prompt][i])
        for i in range(max(map(len, tuned.values()), default=0))
        for prompt in order
    ]
    return [
        NewQuestion(kind="pair", purpose="blind", images=images, round=None, overlap=overlap, priority=float(i))
        for i, images in enumerate(pairs)
    ]


def _credit(answer: Answer, tuned: Collection[int]) -> float | None:
    return float(answer.winner in tuned) if answer.outcome == "win" else CREDIT.get(answer.outcome)
