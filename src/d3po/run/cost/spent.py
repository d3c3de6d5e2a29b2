"""What a run's rounds have cost so far, read off its journal."""

from collections.abc import Iterable
from dataclasses import dataclass

from d3po.store import JournalEntry

WORK = frozenset({"sampling", "rating", "judging", "training"})
"""Phases that make a policy better; evaluating one is no cost of it."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Seconds, and rows of the network; see `d3po.run.cost.counting`."""

    seconds: float = 0.0
    forwards: int = 0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(seconds=self.seconds + other.seconds, forwards=self.forwards + other.forwards)


def spent_by_round(entries: Iterable[JournalEntry]) -> dict[int, Spent]:
    """What each round's sampling, judging and training took, work done twice after a kill included.

    An entry carries what was spent since the one before it, so it belongs to the phase that was then on. A process begins with a phase of no
    round, and what that entry carries is its start.
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
    """The sum over rounds."""
    return sum(spent_by_round(entries).values(), start=Spent())
