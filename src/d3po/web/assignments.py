"""What the server remembers between requests so that a vote costs one commit and nothing else: what was put to whom, and how far they are."""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from d3po.preferences.records import Assigned
from d3po.store import Questions

REMEMBERED = 20_000
"""Assignments, newest first."""
FRESH_SECONDS = 2.0
EFFORT = 0.05
"""Share of the time that may go into counting one annotator's questions; where counting takes long, it is done less often."""


@dataclass
class _Count:
    done: int
    left: int
    until: float


class AssignmentCache:
    """Assignments and progress by annotator. An assignment's pictures never change; progress is counted in between and put right now and then."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions
        self._lock = threading.Lock()
        self._assigned: OrderedDict[str, tuple[int, Assigned]] = OrderedDict()
        self._counts: dict[int, _Count] = {}

    def put(self, annotator: int, assigned: Iterable[Assigned]) -> None:
        """Remember what was put to an annotator."""
        with self._lock:
            for one in assigned:
                self._assigned[one.assignment] = (annotator, one)
                self._assigned.move_to_end(one.assignment)
            while len(self._assigned) > REMEMBERED:
                self._assigned.popitem(last=False)

    def remembered(self, assignment: str, annotator: int) -> Assigned | None:
        """What was put to the annotator, if it is remembered."""
        found = self._assigned.get(assignment)
        return found[1] if found is not None and found[0] == annotator else None

    def assigned(self, assignment: str, annotator: int) -> Assigned | None:
        """The same, asking the store where it is not remembered; None if there is no such assignment of theirs. May block."""
        found = self.remembered(assignment, annotator) or self._questions.assigned(assignment, annotator)
        if found is not None:
            self.put(annotator, [found])
        return found

    def progress(self, annotator: int) -> tuple[int, int]:
        """How many questions an annotator has answered, and how many are left for them. May block."""
        count = self._counts.get(annotator)
        if count is None or count.until < time.monotonic():
            count = self._counts[annotator] = self._count(annotator)
        return count.done, count.left

    def answered(self, annotator: int, change: int) -> None:
        """An answer came in (1) or was taken back (-1)."""
        count = self._counts.get(annotator)
        if count is not None:
            count.done, count.left = max(0, count.done + change), max(0, count.left - change)

    def _count(self, annotator: int) -> _Count:
        started = time.monotonic()
        progress = self._questions.progress(annotator=annotator)
        now = time.monotonic()
        return _Count(done=progress.done, left=progress.left, until=now + max(FRESH_SECONDS, (now - started) / EFFORT))
