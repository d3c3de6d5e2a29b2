"""The feedback phase with people: puts a round's questions into the store, and waits for the votes. Another process serves the rating page."""

import math
import time

from d3po.annotation.questions import ChosenPairs, round_questions
from d3po.preferences.records import NewQuestion
from d3po.progress import Bar
from d3po.run.control import check_control
from d3po.run.feedback.blind import ask_between, blind_result, is_late, people_say, tell_people
from d3po.run.feedback.labels import is_instructive
from d3po.run.feedback.measured import ids_by_prompt
from d3po.run.folder import label_of
from d3po.run.opened import OpenRun

POLL_SECONDS = 1.0


def ask_people(run: OpenRun, round: int, *, tested: int = 0) -> None:
    """Ask the round's questions, wait until there are enough votes to train on, and fix the votes that training will use.

    The wait ends when every question is answered, when there are `feedback.quota` votes, after `feedback.deadline_minutes`, or with "train now" from
    the dashboard. In each case the votes must also contain something that the objective can learn from. The exception is a later round whose
    questions are all answered: training skips such a round.

    A few questions of a blind test of the policy after `tested` rounds are mixed in, except if that is the base model. They are not waited for.

    Raises:
        RunEndedError: a person ended the run from the dashboard.
    """
    if run.store.batches.votes(round) is not None:
        return
    chosen = _chosen_pairs(run, round)
    questions = [] if chosen else questions_of(run, round)
    run.store.questions.ask(questions)
    every = (chosen.questions if chosen else len(questions)) * run.config.feedback.overlap
    wanted = min(run.config.feedback.quota or every, every)
    in_order = sorted(question.priority for question in questions)
    last = chosen.pairs_per_prompt * wanted / every if chosen else in_order[math.ceil(wanted / run.config.feedback.overlap) - 1]
    blind = ask_between(run, round, tested, last=last)
    opened = run.journal.phase_began("rating", round) or run.store.database.now()
    run.journal.phase("rating", round, f"{wanted} votes wanted")
    with run.narrator.bar(f"round {round}: people voting", total=wanted) as bar:
        seen, answers, told = 0, -1, 0
        while not _enough(run, round, wanted, every, opened):
            answers = _ask_next(run, chosen, answers) if chosen else 0
            seen = _show(run, round, wanted, seen, bar, f"answer at the page of `d3po rate {run.folder.path}`")
            told = tell_people(run, tested, told) if blind else 0
            time.sleep(POLL_SECONDS)
        _show(run, round, wanted, seen, bar, "")
    run.store.batches.claim(round)
    if blind and (said := blind_result(run, tested)):
        tell_people(run, tested, told)
        run.narrator.say(f"{label_of(tested)}: {people_say(*said)}")
    run.journal.forget()


def _chosen_pairs(run: OpenRun, round: int) -> ChosenPairs | None:
    """The adaptive choice of the round's pairs while people vote. None if all questions are asked at the beginning."""
    settings = run.config.feedback
    if settings.choose == "random":
        return None
    groups = ids_by_prompt(run.store.pictures.images(round))
    return ChosenPairs(
        round=round, groups=groups, pairs_per_prompt=settings.pairs_per_prompt, overlap=settings.overlap, seed=run.config.seed
    )


def _ask_next(run: OpenRun, chosen: ChosenPairs, answers: int) -> int:
    """Ask the next pairs if the number of answers is no longer `answers`, and return the present number."""
    now = run.store.votes.count(round=chosen.round, purpose="train")
    if now == answers:
        return answers
    votes = list(run.store.votes.current(round=chosen.round, purpose="train"))
    run.store.questions.ask(chosen.next(run.store.questions.asked(chosen.round), votes))
    return len(votes)


def questions_of(run: OpenRun, round: int) -> list[NewQuestion]:
    """The round's questions, if all of them are asked at the beginning."""
    settings = run.config.feedback
    return round_questions(
        ids_by_prompt(run.store.pictures.images(round)),
        kind=settings.ask,
        pairs_per_prompt=settings.pairs_per_prompt,
        overlap=settings.overlap,
        round=round,
        seed=run.config.seed,
    )


def _show(run: OpenRun, round: int, wanted: int, seen: int, bar: Bar, remark: str) -> int:
    votes = min(run.store.votes.count(round=round, purpose="train"), wanted)
    if votes > seen:
        run.folder.remember(run.store)
    bar.advance(votes - seen, remark)
    return votes


def _enough(run: OpenRun, round: int, wanted: int, every: int, opened: int) -> bool:
    control = check_control(run)
    votes = run.store.votes.count(round=round, purpose="train")
    if not (is_late(run, opened) or control.train_now_round == round or votes >= wanted):
        return False
    return (round > 0 and votes >= every) or is_instructive(run, run.store.votes.current(round=round, purpose="train"))
