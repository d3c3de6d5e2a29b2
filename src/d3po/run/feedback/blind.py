"""The blind test: people compare the base model's pictures with the tuned ones, on held-out prompts, without knowing which is which.

In a run that people judge it is asked by itself: whole after the last round, and a few questions of it in each later round.
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
from d3po.run.folder import BASE, label_of, series_of
from d3po.run.opened import OpenRun

POLL_SECONDS = 1.0
CREDIT = {"tie": 0.5, "both_bad": 0.5}
"""What an answer without a winner gives to the tuned picture; a skip or a flag says nothing."""


def ask_blind(run: OpenRun, rounds: int, *, overlap: int) -> int:
    """Put the test's questions: every tuned picture against a base picture of its prompt that was drawn from other noise.

    Raises:
        RunFolderError: the policy after `rounds` rounds has no evaluation, or it is the base model.
    """
    if rounds == 0 or not run.folder.evaluation(label_of(rounds)).exists():
        raise RunFolderError(f"{run.folder.path} has no evaluated tuned model to test; make one with `d3po run {run.folder.path}`")
    return len(run.store.questions.ask(_questions(run, rounds, overlap=overlap)))


def hold_blind_test(run: OpenRun, rounds: int) -> None:
    """Put `evaluation.blind_questions` about the policy after `rounds` rounds, and wait for the answers; once for each policy.

    The wait ends when none is open, because all are answered or somebody ended the test at the page, or `feedback.deadline_minutes` later.

    Raises:
        RunEndedError: somebody ended the run from the dashboard.
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
    """Mix `evaluation.blind_between_rounds` about the policy after `rounds` rounds into the questions of a round; returns how many there are.

    Args:
        run: the run.
        round: the round whose questions they are put among.
        rounds: rounds behind the policy.
        last: the priority of the last question of the round that is waited for; they are spread evenly over those before it.
    """
    count = run.config.evaluation.blind_between_rounds
    questions = _questions(run, rounds, overlap=run.config.feedback.overlap)[:count] if rounds else []
    spread = [replace(each, round=round, priority=last * (i + 0.5) / len(questions)) for i, each in enumerate(questions)]
    return len(run.store.questions.ask(spread))


def tell_people(run: OpenRun, rounds: int, told: int) -> int:
    """Tell the dashboard what people say of the policy after `rounds` rounds, if there are other than `told` blind votes; returns how many."""
    votes = run.store.votes.count(purpose="blind")
    if votes != told and (result := blind_result(run, rounds)):
        run.journal.forget()
        run.journal.write("evaluation", rounds - 1, rounds=rounds, people=asdict(result[0]), people_answers=result[1])
    return votes


def is_late(run: OpenRun, opened: int) -> bool:
    """Whether `feedback.deadline_minutes` are over for people who were first asked at that time, in ms since 1970."""
    minutes = run.config.feedback.deadline_minutes
    return minutes > 0 and run.store.database.now() - opened > minutes * 60_000


def blind_result(run: OpenRun, rounds: int) -> tuple[Interval, int] | None:
    """People's win rate of the policy after `rounds` rounds over the base model and the number of votes; None without votes."""
    tuned = {image for images in _by_prompt(run, label_of(rounds)).values() for image in images} if rounds else set[int]()
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
    """The result of a blind test, and how many answers it rests on."""
    if people is None:
        return "nobody has compared the tuned model blind with the base model"
    ends = f"95 % interval {100 * people.low:.0f} to {100 * people.high:.0f} %"
    return (
        f"people preferred the tuned model to the base model {100 * people.value:.0f} % of the time ({ends}), "
        f"from {answers} blind answer{'s' * (answers != 1)}"
    )


def _questions(run: OpenRun, rounds: int, *, overlap: int) -> list[NewQuestion]:
    """Each picture of the policy against another noise's of the base model: every prompt once before any twice, in an order of the policy's own.

    None where the policy has no pictures yet.
    """
    base, tuned = (_by_prompt(run, label) for label in (BASE, label_of(rounds)))
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


def _by_prompt(run: OpenRun, label: str) -> dict[int, list[int]]:
    images: dict[int, list[int]] = defaultdict(list)
    for picture in run.store.pictures.series(series_of(label)):
        images[picture.prompt_id].append(picture.id)
    return images
