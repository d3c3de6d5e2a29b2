"""Reads the trainer's journal incrementally, so that the dashboard of a long run costs no more than that of a short one."""

import threading
import time
from collections.abc import Mapping
from typing import Any

from d3po.store import Journal, JournalEntry
from d3po.web.messages import AlarmMessage, CostSoFar, CurveMessage, CurvePoint, Phase

FRESH_SECONDS = 1.0
"""How long the journal is not read again. Every waiting page asks every few seconds."""
MOST_ALARMS = 100
"""The most alarms that are kept; the oldest are dropped first."""
NOT_FIGURES = frozenset({"rounds", "comparisons", "people_answers", "round", "seconds", "network_rows"})
UNKNOWN = Phase(phase="rating", round=None, since=0, message="")
"""The phase before the trainer has written anything."""


class JournalView:
    """The contents of the journal so far. Every number in the body of an evaluation becomes a curve, with its interval if it has one."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._read_at, self._last = 0.0, 0
        self._paused = False
        self._phases: list[Phase] = []
        self._curves: dict[str, dict[object, CurvePoint]] = {}
        self._measured_by = ""
        self._alarms: list[AlarmMessage] = []
        self._cost = CostSoFar(network_rows=0, seconds=0.0, updates=0)

    def phase(self) -> Phase:
        """What the trainer is doing. Blocks."""
        self._catch_up()
        return self._phases[-1] if self._phases else UNKNOWN

    def status(self) -> Phase:
        """What annotators who wait for questions are shown: what the trainer is doing, or that it is paused. Blocks."""
        phase = self.phase()
        return phase.model_copy(update={"phase": "paused", "message": ""}) if self._paused else phase

    def round(self) -> int | None:
        """The newest round that has begun. Blocks."""
        self._catch_up()
        return max((phase.round for phase in self._phases if phase.round is not None), default=None)

    def phases(self, round: int) -> list[Phase]:
        """The phases of a round, oldest first. Blocks."""
        self._catch_up()
        return [phase for phase in self._phases if phase.round == round]

    def curves(self) -> list[CurveMessage]:
        """The curve of every figure over all evaluations. Blocks."""
        self._catch_up()
        return [CurveMessage(name=name, points=list(points.values())) for name, points in self._curves.items()]

    def measured_by(self) -> str:
        """The reward that figures are measured by, in a run that people judge. Blocks."""
        self._catch_up()
        return self._measured_by

    def alarms(self) -> list[AlarmMessage]:
        """The guards' alarms, newest first. Blocks."""
        self._catch_up()
        return self._alarms[::-1]

    def cost(self) -> CostSoFar:
        """What the run has cost so far. Blocks."""
        self._catch_up()
        return self._cost

    def _catch_up(self) -> None:
        with self._lock:
            if time.monotonic() - self._read_at < FRESH_SECONDS:
                return
            for entry in self._journal.read(after=self._last):
                self._fold(entry)
                self._last = entry.id
            self._paused = self._journal.current_control().paused
            self._read_at = time.monotonic()

    def _fold(self, entry: JournalEntry) -> None:
        body = entry.body
        match entry.kind:
            case "phase":
                self._phases.append(Phase(phase=_text(body, "phase"), round=entry.round, since=entry.at, message=_text(body, "message")))
            case "evaluation":
                self._fold_evaluation(entry.round, body)
            case "alarm":
                self._alarms = [*self._alarms, _alarm(entry)][-MOST_ALARMS:]
            case _:
                pass
        self._fold_cost(entry.kind, body)

    def _fold_evaluation(self, round: int | None, body: Mapping[str, Any]) -> None:
        rounds, comparisons = body.get("rounds"), body.get("comparisons")
        self._measured_by = _text(body, "measured") if "measured" in body else self._measured_by
        for name, value in body.items():
            if name in NOT_FIGURES or (ends := _figure(value)) is None:
                continue
            answers = int(_number(body.get("people_answers")) or 0) if name == "people" else None
            point = CurvePoint(
                round=round, rounds=rounds, comparisons=comparisons, answers=answers, value=ends[0], low=ends[1], high=ends[2]
            )
            self._curves.setdefault(name, {})[rounds if rounds is not None else round] = (
                point  # if it was measured again, the newer value counts
            )

    def _fold_cost(self, kind: str, body: Mapping[str, Any]) -> None:
        so_far = self._cost
        self._cost = CostSoFar(
            network_rows=so_far.network_rows + int(_number(body.get("network_rows")) or 0),
            seconds=so_far.seconds + (_number(body.get("seconds")) or 0.0),
            updates=so_far.updates + (kind == "update"),
        )


def _alarm(entry: JournalEntry) -> AlarmMessage:
    return AlarmMessage(at=entry.at, round=entry.round, message=_text(entry.body, "message"), stops=entry.body.get("stops") is True)


def _figure(value: object) -> tuple[float, float | None, float | None] | None:
    """A figure and the ends of its interval, if the value is one."""
    if isinstance(value, Mapping):
        middle = _number(value.get("value"))
        return None if middle is None else (middle, _number(value.get("low")), _number(value.get("high")))
    middle = _number(value)
    return None if middle is None else (middle, None, None)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf") else None


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key, "")
    return value if isinstance(value, str) else ""
