"""Caches assignments and the annotators' progress between requests, so that a vote needs one commit and no other query."""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from d3po.preferences.records import Assigned
from d3po.store import Questions

REMEMBERED = 20_000
"""The most assignments that are cached; the oldest are dropped first."""
FRESH_SECONDS = 2.0
"""How long a counted progress is used before it is counted again."""
EFFORT = 0.05
"""The largest share of the time that may be spent on counting one annotator's questions. If counting takes long, it is done less often."""


@dataclass
class _Count:
    done: int
    left: int
    until: float


class AssignmentCache:
    """Caches assignments and progress by annotator.

    The pictures of an assignment never change. Progress is updated with each vote, and counted again in the store now and then.
    """

    def __init__(self, questions: Questions) -> None:
        self._questions = questions
        self._lock = threading.Lock()
        self._assigned: OrderedDict[str, tuple[int, Assigned]] = OrderedDict()
        self._counts: dict[int, _Count] = {}

    def put(self, annotator: int, assigned: Iterable[Assigned]) -> None:
        """Cache the questions assigned to an annotator."""
        with self._lock:
            for one in assigned:
                self._assigned[one.assignment] = (annotator, one)
                self._assigned.move_to_end(one.assignment)
            while len(self._assigned) > REMEMBERED:
                self._assigned.popitem(last=False)

    def remembered(self, assignment: str, annotator: int) -> Assigned | None:
        """The assignment if it is cached and belongs to this annotator, else None."""
        found = self._assigned.get(assignment)
        return found[1] if found is not None and found[0] == annotator else None

    def assigned(self, assignment: str, annotator: int) -> Assigned | None:
        """The assignment of this annotator, from the cache or from the store. None if the annotator has no such assignment. May block."""
        found = self.remembered(assignment, annotator) or self._questions.assigned(assignment, annotator)
        if found is not None:
            self.put(annotator, [found])
        return found

    def progress(self, annotator: int) -> tuple[int, int]:
        """The number of questions that an annotator has answered, and the number left for this annotator. May block."""
        count = self._counts.get(annotator)
        if count is None or count.until < time.monotonic():
            count = self._counts[annotator] = self._count(annotator)
        return count.done, count.left

    def answered(self, annotator: int, change: int) -> None:
        """Update the progress of an annotator after an answer (`change` 1) or a withdrawal (-1)."""
        count = self._counts.get(annotator)
        if count is not None:
            count.done, count.left = max(0, count.done + change), max(0, count.left - change)

    def _count(self, annotator: int) -> _Count:
        started = time.monotonic()
        progress = self._questions.progress(annotator=annotator)
        now = time.monotonic()
        return _Count(done=progress.done, left=progress.left, until=now + max(FRESH_SECONDS, (now - started) / EFFORT))
