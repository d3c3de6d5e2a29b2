"""Asking people about a round: the questions, and the wait for their votes. Their page is served elsewhere; only the store is shared."""

import random
import time
from collections.abc import Iterator

from d3po.annotation.choosing import ChosenPairs
from d3po.annotation.selection import all_pairs, random_pairs
from d3po.preferences.records import NewQuestion
from d3po.run.control import check_control
from d3po.run.feedback.labels import is_instructive
from d3po.run.feedback.measured import ids_by_prompt
from d3po.run.progress import Bar
from d3po.run.workbench import Workbench

POLL_SECONDS = 1.0


def ask_people(bench: Workbench, round: int) -> None:
    """Put the round's questions, wait until there is enough to train on, and fix the votes that training will see.

    Enough is: every question answered, or `feedback.quota` votes, or `feedback.deadline_minutes` past, or "train now" from the
    dashboard; and something that the objective can learn from, unless all questions of a later round are answered: training passes such a round over.
    """
    if bench.store.batches.votes(round) is not None:
        return
    chosen = _chosen_pairs(bench, round)
    questions = chosen.questions if chosen else len(bench.store.questions.ask(questions_of(bench, round)))
    every = questions * bench.config.feedback.overlap
    wanted = min(bench.config.feedback.quota or every, every)
    opened = bench.journal.phase_began("rating", round) or bench.store.database.now()
    bench.journal.phase("rating", round, f"{wanted} votes wanted")
    with bench.narrator.bar(f"round {round}: people voting", total=wanted) as bar:
        seen, answers = 0, -1
        while not _enough(bench, round, wanted, every, opened):
            answers = _ask_next(bench, chosen, answers) if chosen else 0
            seen = _show(bench, round, wanted, seen, bar, f"answer at the page of `d3po rate {bench.folder.path}`")
            time.sleep(POLL_SECONDS)
        _show(bench, round, wanted, seen, bar, "")
    bench.store.batches.claim(round)
    bench.journal.forget()


def _chosen_pairs(bench: Workbench, round: int) -> ChosenPairs | None:
    """How the round's pairs are chosen while people vote; None where all questions are put at the beginning."""
    settings = bench.config.feedback
    if settings.choose == "random":
        return None
    groups = ids_by_prompt(bench.store.pictures.images(round))
    return ChosenPairs(
        round=round, groups=groups, pairs_per_prompt=settings.pairs_per_prompt, overlap=settings.overlap, seed=bench.config.seed
    )


def _ask_next(bench: Workbench, chosen: ChosenPairs, answers: int) -> int:
    """Put the next pairs if there are other than so many answers by now; returns how many there are."""
    now = bench.store.votes.count(round=chosen.round, purpose="train")
    if now == answers:
        return answers
    votes = list(bench.store.votes.current(round=chosen.round, purpose="train"))
    bench.store.questions.ask(chosen.next(bench.store.questions.asked(chosen.round), votes))
    return len(votes)


def questions_of(bench: Workbench, round: int) -> list[NewQuestion]:
    """The round's questions: every prompt is asked about once before any is asked about twice."""
    settings = bench.config.feedback
    order = random.Random(f"{bench.config.seed}/questions/{round}")
    return [
        NewQuestion(
            kind=settings.ask, purpose="train", images=images, round=round, overlap=settings.overlap, priority=turn + order.random()
        )
        for prompt, ids in ids_by_prompt(bench.store.pictures.images(round)).items()
        for turn, images in enumerate(_images_of_questions(bench, round, prompt, ids))
    ]


def _images_of_questions(bench: Workbench, round: int, prompt: int, ids: list[int]) -> Iterator[tuple[int, ...]]:
    settings = bench.config.feedback
    if settings.ask == "pair":
        count = settings.pairs_per_prompt or len(all_pairs(ids))
        pairs = random_pairs(ids, count, seed=f"{bench.config.seed}/pairs/{round}/{prompt}")
        yield from random.Random(f"{bench.config.seed}/pair order/{round}/{prompt}").sample(pairs, len(pairs))
    elif settings.ask in ("thumb", "score"):
        yield from ((image,) for image in ids)
    else:
        yield tuple(ids)


def _show(bench: Workbench, round: int, wanted: int, seen: int, bar: Bar, remark: str) -> int:
    votes = min(bench.store.votes.count(round=round, purpose="train"), wanted)
    if votes > seen:
        bench.folder.remember(bench.store)
    bar.advance(votes - seen, remark)
    return votes


def _enough(bench: Workbench, round: int, wanted: int, every: int, opened: int) -> bool:
    control = check_control(bench)
    minutes = bench.config.feedback.deadline_minutes
    late = minutes > 0 and bench.store.database.now() - opened > minutes * 60_000
    votes = bench.store.votes.count(round=round, purpose="train")
    if not (late or control.train_now_round == round or votes >= wanted):
        return False
    return (round > 0 and votes >= every) or is_instructive(bench, bench.store.votes.current(round=round, purpose="train"))
