"""What rounds cost, read off the journal."""

from typing import Any, get_args

import pytest

from d3po.run.cost.spent import WORK, Spent, spent_by_round, spent_in_all
from d3po.run.journal import PhaseName
from d3po.store import JournalEntry


def entry(kind: Any, round: int | None, seconds: float, rows: int, phase: str = "") -> JournalEntry:
    return JournalEntry(id=0, at=0, kind=kind, round=round, body={"phase": phase, "seconds": seconds, "network_rows": rows})


def test_an_entry_pays_for_the_phase_before_it_and_evaluation_costs_nothing() -> None:
    entries = [
        entry("phase", None, 9.0, 0, "evaluating"),  # loading the model
        entry("evaluation", None, 8.0, 80),
        entry("phase", 0, 7.0, 0, "sampling"),
        entry("phase", 0, 1.0, 10, "training"),
        entry("update", 0, 2.0, 20),
        entry("phase", 0, 3.0, 30, "evaluating"),
        entry("evaluation", 0, 40.0, 400),
        entry("phase", 1, 0.0, 0, "sampling"),
        entry("phase", None, 50.0, 0, "evaluating"),  # the run was killed and begun again
        entry("phase", 1, 60.0, 600, "sampling"),
        entry("phase", 1, 4.0, 40, "training"),
        entry("phase", None, 5.0, 50, "done"),
    ]
    assert spent_by_round(entries) == {0: Spent(seconds=6.0, forwards=60), 1: Spent(seconds=9.0, forwards=90)}
    assert spent_in_all(entries) == Spent(seconds=15.0, forwards=150)


@pytest.mark.parametrize("phase", sorted(WORK))
def test_every_phase_of_work_is_paid_for(phase: str) -> None:
    entries = [entry("phase", 0, 0.0, 0, phase), entry("phase", None, 3600.0, 7, "done")]
    assert spent_in_all(entries) == Spent(seconds=3600.0, forwards=7)


def test_only_looking_at_a_policy_is_free() -> None:
    assert set(get_args(PhaseName)) - WORK == {"evaluating", "blind test", "done", "stopped"}
