"""A clock that never goes back, neither while a process runs nor from one process to the next."""

import threading
import time

from sqlalchemy import Connection, func, select

from d3po.store.tables import AnnotatorRow, AssignmentRow, AuditRow, ControlRow, FeedbackBatchRow, JournalRow, TokenRow, VoteRow

_LAST_VOTES = select(func.max(VoteRow.received_at)).where(VoteRow.annotator_id == AnnotatorRow.id).scalar_subquery()

_NEWEST = (
    select(func.max(_LAST_VOTES)).select_from(AnnotatorRow),
    select(func.max(AssignmentRow.created_at)).where(AssignmentRow.state == "leased"),
    *(select(row.at).order_by(row.id.desc()).limit(1) for row in (JournalRow, ControlRow, AuditRow)),
    *(select(row.created_at).order_by(row.id.desc()).limit(1) for row in (TokenRow, AnnotatorRow, FeedbackBatchRow)),
)
"""Queries for the newest times. Each is answered from an index, so that a database with a million votes opens as fast as a small one."""


class Clock:
    """Tells milliseconds since 1970. While the machine's clock is behind the latest time, this clock continues from that time at normal speed.

    Args:
        newest: the latest time told so far, by any process.
    """

    def __init__(self, newest: int) -> None:
        self._lock = threading.Lock()
        self._latest, self._told_at = newest, _running()

    def now(self) -> int:
        """The time in milliseconds since 1970, never less than one told before."""
        with self._lock:
            running = _running()
            self._latest = max(time.time_ns() // 1_000_000, self._latest + running - self._told_at)
            self._told_at = running
            return self._latest


def newest_time(connection: Connection) -> int:
    """The newest time in the database; 0 if it is empty."""
    return max(connection.execute(query).scalar_one_or_none() or 0 for query in _NEWEST)


def _running() -> int:
    """Milliseconds by the monotonic clock, which cannot be set."""
    return time.monotonic_ns() // 1_000_000
