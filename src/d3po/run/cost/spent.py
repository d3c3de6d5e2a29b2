"""The cost of a run's rounds so far, read from its journal."""

from collections.abc import Iterable
from dataclasses import dataclass

from d3po.store import JournalEntry

WORK = frozenset({"sampling", "rating", "judging", "training"})
"""Phases that count as cost. Evaluation does not, because it does not improve the policy."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Seconds and forward passes that were spent; for forward passes see `d3po.run.cost.counting`."""

    seconds: float = 0.0
    forwards: int = 0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(seconds=self.seconds + other.seconds, forwards=self.forwards + other.forwards)


def spent_by_round(entries: Iterable[JournalEntry]) -> dict[int, Spent]:
    """Sum up what sampling, comparing and training of each round took. Work that was done twice because of a kill counts twice.

    An entry holds what was spent since the entry before it, so it belongs to the phase that was then going on. The first entry of a process is a
    phase without a round; what it holds is the time that the process took to start, which is not counted.
    """
    spent: dict[int, Spent] = {}
    working: int | None = None
    for entry in entries:
        begins = entry.kind == "phase"
        if working is not None and not (begins and entry.round is None and entry.body["phase"] == "evaluating"):
            here = Spent(seconds=entry.body["seconds"], forwards=entry.body["network_rows"])
            spent[working] = spent.get(working, Spent()) + here
        if begins:
            working = entry.round if entry.body["phase"] in WORK else None
    return spent


def spent_in_all(entries: Iterable[JournalEntry]) -> Spent:
    """Sum up what all rounds took; see `spent_by_round`."""
    return sum(spent_by_round(entries).values(), start=Spent())
