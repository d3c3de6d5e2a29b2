"""Annotators as they are: they send a vote three times, undo it in two tabs at once, walk away, come back too late, change their minds.

Each keeps a log of what it sent and what it was told, which the store is held against afterwards.
"""

import random
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from d3po.errors import StorageError
from d3po.preferences.records import Answer, Assigned, Vote
from d3po.store import Receipt, Store
from tests.unit.store.stores import cast

Result = TypeVar("Result")

TRIPLE, UNDO, ABANDON, TWO_MINDS = 0.4, 0.15, 0.05, 0.1
"""Shares of votes that are sent three times at once, undone twice at once, never or too late sent, and cast otherwise in two tabs at once."""

MOMENT = 0.15
"""Seconds that an abandoned lease lasts."""


@dataclass(kw_only=True)
class Event:
    """A vote or withdrawal as a client remembers it."""

    id: str
    question: int
    annotator: int
    answer: Answer | None
    sent_at: float
    told_at: float
    """When its receipt came."""


@dataclass(kw_only=True)
class Log:
    """What one annotator sent, and what should stand in the end: the id of one of these votes, or none."""

    events: list[Event] = field(default_factory=list[Event])
    standing: dict[int, set[str]] = field(default_factory=dict[int, set[str]])
    mistakes: list[str] = field(default_factory=list[str])


class Racer:
    """One annotator with three tabs."""

    def __init__(self, store: Store, annotator: int, *, seed: int) -> None:
        self._store, self.annotator = store, annotator
        self._chance = random.Random(seed)
        self._tabs = ThreadPoolExecutor(3)
        self.log = Log()

    def run(self, stop: threading.Event) -> None:
        """Answer until nothing comes any more and the race is over."""
        idle = 0
        while idle < 5:
            abandons = self._chance.random() < ABANDON
            count, seconds = self._chance.randint(1, 3), MOMENT if abandons else 60.0
            assigned = persistent(
                lambda count=count, seconds=seconds: self._store.questions.lease(self.annotator, count, lease_seconds=seconds)
            )
            idle = 0 if assigned or not stop.is_set() else idle + 1
            if abandons:
                time.sleep(2 * MOMENT)
                assigned = [one for one in assigned if self._chance.random() < 0.5]
            for one in assigned:
                self._answer(one)
            if not assigned:
                time.sleep(0.02)
        self._tabs.shutdown()

    def _answer(self, assigned: Assigned) -> None:
        if self._chance.random() < TWO_MINDS:
            self._cast_two(assigned)
            return
        id = self._cast(assigned, copies=3 if self._chance.random() < TRIPLE else 1)
        if self._chance.random() < UNDO:
            self._undo(assigned, id)
            if self._chance.random() < 0.8:
                self._cast(assigned, copies=1)

    def _cast(self, assigned: Assigned, *, copies: int) -> str:
        sent = cast(assigned, self.annotator, self._opinion(assigned))
        receipts = self._at_once([lambda: self._store.votes.cast(sent)] * copies, [(sent.id, sent.answer)], assigned)
        if sorted(receipt.status for receipt in receipts) != ["duplicate"] * (copies - 1) + ["new"]:
            self.log.mistakes.append(f"{copies} copies of {sent.id} gave {receipts}")
        self.log.standing[assigned.question] = {sent.id}
        return sent.id

    def _cast_two(self, assigned: Assigned) -> None:
        both = [cast(assigned, self.annotator, self._opinion(assigned)) for _ in range(2)]
        calls = [lambda sent=sent: self._store.votes.cast(sent) for sent in both]
        receipts = self._at_once(calls, [(sent.id, sent.answer) for sent in both], assigned)
        if [receipt.status for receipt in receipts] != ["new", "new"]:
            self.log.mistakes.append(f"two minds on question {assigned.question} gave {receipts}")
        self.log.standing[assigned.question] = {sent.id for sent in both}

    def _undo(self, assigned: Assigned, vote: str) -> None:
        ids = [str(uuid.uuid4()), str(uuid.uuid4())]
        calls = [lambda id=id: self._store.votes.retract(id, vote, self.annotator) for id in ids]
        receipts = self._at_once(calls, [], assigned)
        if sorted(receipt.status for receipt in receipts) != ["duplicate", "new"] or len({receipt.vote for receipt in receipts}) != 1:
            self.log.mistakes.append(f"two undos of {vote} gave {receipts}")
        now = time.monotonic()
        self.log.events.append(
            Event(id=receipts[0].vote, question=assigned.question, annotator=self.annotator, answer=None, sent_at=now, told_at=now)
        )
        self.log.standing[assigned.question] = set()

    def _at_once(self, calls: list[Callable[[], Receipt]], sent: list[tuple[str, Answer]], assigned: Assigned) -> list[Receipt]:
        began = time.monotonic()
        receipts: list[Receipt] = list(self._tabs.map(persistent, calls)) if len(calls) > 1 else [persistent(calls[0])]
        for id, answer in sent:
            self.log.events.append(
                Event(
                    id=id, question=assigned.question, annotator=self.annotator, answer=answer, sent_at=began, told_at=time.monotonic()
                )
            )  # fmt: skip
        return receipts

    def _opinion(self, assigned: Assigned) -> Answer:
        left, right = assigned.shown
        share = round(self._chance.random(), 3)
        return self._chance.choice(
            [
                Answer(outcome="win", winner=left),
                Answer(outcome="win", winner=right),
                Answer(outcome="tie"),
                Answer(outcome="share", values={left: share, right: 1 - share}),
            ]
        )


def persistent(call: Callable[[], Result]) -> Result:
    """Ask again where the database was locked for too long, as clients do."""
    for _ in range(100):
        try:
            return call()
        except StorageError:
            time.sleep(0.05)
    return call()


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What two trainers that claimed a round at once were given, and when."""

    batches: tuple[list[Vote], list[Vote]]
    began: float
    ended: float


def claim_twice(stores: tuple[Store, Store], round: int) -> Claim:
    """Claim a round in two threads at once."""
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda store: persistent(lambda: store.batches.claim(round)), stores)
    return Claim(batches=(first, second), began=began, ended=time.monotonic())
