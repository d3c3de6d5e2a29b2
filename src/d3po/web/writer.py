"""The one thread that writes. Votes and withdrawals that arrive together are committed together, and acknowledged only after that commit.

One writer means that requests never wait for each other's locks, and that a burst of votes costs one fsync, not one each.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Protocol, TypeVar, runtime_checkable

from d3po.errors import D3POError, StorageError, VoteError
from d3po.preferences.records import Cast
from d3po.store import Receipt, Retract

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_WAITING = 4096
"""Requests that may wait for the writer; more are told to come back."""
MOST_TOGETHER = 256
"""Votes and withdrawals in one commit."""


@runtime_checkable
class VoteSink(Protocol):
    """What the writer needs of the store: a receipt for each event, or why it was refused, after one commit of all."""

    def cast_many(self, casts: Sequence[Cast | Retract], *, lease_seconds: float) -> Sequence[Receipt | VoteError]:
        """Record events in one transaction; a refused one does not harm its neighbours."""
        ...


class Writer:
    """Runs jobs on its own thread; votes that wait at the same time share a commit, everything else follows in order of arrival.

    Args:
        votes: where votes go.
        patience: seconds a caller waits for its job before it is told that the store is away.
        lease_seconds: how long a question stays reserved for whoever took the answer to it back.
    """

    def __init__(self, votes: VoteSink, *, patience: float, lease_seconds: float) -> None:
        self._votes, self._patience, self._lease_seconds = votes, patience, lease_seconds
        self._queue: queue.Queue[_Event | _Job | None] = queue.Queue(maxsize=MOST_WAITING)
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="d3po-writer", daemon=True)
        self._thread.start()

    async def record(self, event: Cast | Retract) -> Receipt:
        """Store a vote or a withdrawal; it is on disk when this returns.

        Raises:
            StorageError: the store is away, full or too busy; nothing says whether the vote was stored, so send it again with the same id.
            VoteError, VoteConflictError: it is refused.
        """
        waiting = _Event(event)
        return await self._wait(waiting, waiting.done)

    async def run(self, work: Callable[[], T]) -> T:
        """Run any other writing.

        Raises:
            StorageError: as for `record`; and whatever the work raises.
        """
        done: Future[T] = Future()
        return await self._wait(_Job(lambda: _settle(done, work)), done)

    def close(self) -> None:
        """Finish what is waiting, then end the thread."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join(2 * self._patience)

    async def _wait(self, item: "_Event | _Job", done: "Future[T]") -> T:
        try:
            if self._closed:
                raise queue.Full
            self._queue.put_nowait(item)
        except queue.Full:
            raise StorageError("the server is busy; nothing was stored, try again shortly") from None
        try:
            return await asyncio.wait_for(asyncio.wrap_future(done), self._patience)
        except TimeoutError:
            raise StorageError(f"the store did not answer within {self._patience:g} s; send the same again shortly") from None

    def _work(self) -> None:
        open_ended = True
        while open_ended:
            taken = [self._queue.get()]
            while len(taken) < MOST_TOGETHER:
                try:
                    taken.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            open_ended = None not in taken
            self._commit_together([item for item in taken if isinstance(item, _Event)])
            for item in taken:
                if isinstance(item, _Job):
                    item.run()

    def _commit_together(self, waiting: "list[_Event]") -> None:
        waiting = [event for event in waiting if event.done.set_running_or_notify_cancel()]
        if not waiting:
            return
        try:
            outcomes = self._votes.cast_many([each.event for each in waiting], lease_seconds=self._lease_seconds)
        except Exception as error:
            if not isinstance(error, D3POError):
                log.exception("votes could not be stored")
            for event in waiting:
                event.done.set_exception(error)
            return
        for event, outcome in zip(waiting, outcomes, strict=True):
            if isinstance(outcome, VoteError):
                event.done.set_exception(outcome)
            else:
                event.done.set_result(outcome)


class _Event:
    """A vote or a withdrawal that waits for its commit."""

    def __init__(self, event: Cast | Retract) -> None:
        self.event = event
        self.done: Future[Receipt] = Future()


class _Job:
    """Any other writing."""

    def __init__(self, run: Callable[[], None]) -> None:
        self.run = run


def _settle(done: "Future[T]", work: Callable[[], T]) -> None:
    if not done.set_running_or_notify_cancel():
        return
    with suppress(InvalidStateError):
        try:
            done.set_result(work())
        except Exception as error:
            done.set_exception(error)
