"""The blind test: people compare the base model's pictures with the tuned model's on held-out prompts, without knowing which is which."""

from collections import defaultdict

import numpy as np

from d3po.errors import RunFolderError
from d3po.evaluation.win_rate import Interval, mean_interval
from d3po.preferences.records import Answer, NewQuestion
from d3po.run.evaluate.phase import series_of
from d3po.run.folder import BASE, label_of
from d3po.run.opened import OpenRun

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
    base, tuned = (_by_prompt(run, label) for label in (BASE, label_of(rounds)))
    questions = [
        NewQuestion(
            kind="pair",
            purpose="blind",
            images=(base[prompt][(i + 1) % len(images)], image),
            round=None,
            overlap=overlap,
            priority=float(i),
        )
        for prompt, images in tuned.items()
        for i, image in enumerate(images)
    ]
    return len(run.store.questions.ask(questions))


def blind_result(run: OpenRun, rounds: int) -> tuple[Interval, int] | None:
    """The win rate of the policy after `rounds` rounds over the base model in people's votes, and the number of votes. None without votes."""
    tuned = {image for images in _by_prompt(run, label_of(rounds)).values() for image in images}
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


def _credit(answer: Answer, tuned: set[int]) -> float | None:
    return float(answer.winner in tuned) if answer.outcome == "win" else CREDIT.get(answer.outcome)


def _by_prompt(run: OpenRun, label: str) -> dict[int, list[int]]:
    images: dict[int, list[int]] = defaultdict(list)
    for picture in run.store.pictures.series(series_of(label)):
        images[picture.prompt_id].append(picture.id)
    return images
