"""The only thread that writes to the store. Votes and withdrawals that arrive together share a commit, and are acknowledged only after it.

With a single writer, requests never wait for each other's locks, and a burst of votes needs one fsync instead of one each.
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
"""The most requests that may wait for the writer; any more are told to try again."""
MOST_TOGETHER = 256
"""The most votes and withdrawals in one commit."""


@runtime_checkable
class VoteSink(Protocol):
    """What the writer needs of the store."""

    def cast_many(self, casts: Sequence[Cast | Retract], *, lease_seconds: float) -> Sequence[Receipt | VoteError]:
        """Record events in one transaction. Return for each a receipt, or the error with which it was refused; refusals do not affect the others."""
        ...


class Writer:
    """Runs jobs in a separate thread. Votes that wait at the same time share a commit; all other jobs follow in order of arrival.

    Args:
        votes: records the votes.
        patience: how many seconds a caller waits for its job before it is told to try again.
        lease_seconds: how long a question stays reserved for an annotator who has withdrawn the answer to it.
    """

    def __init__(self, votes: VoteSink, *, patience: float, lease_seconds: float) -> None:
        self._votes, self._patience, self._lease_seconds = votes, patience, lease_seconds
        self._queue: queue.Queue[_QueuedVote | _QueuedWrite | None] = queue.Queue(maxsize=MOST_WAITING)
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="d3po-writer", daemon=True)
        self._thread.start()

    async def record(self, event: Cast | Retract) -> Receipt:
        """Store a vote or a withdrawal. It is on disk when this returns.

        Raises:
            StorageError: the store is unreachable, full or too busy. The vote may or may not be stored, so it should be sent again with the same id.
            VoteError, VoteConflictError: it was refused.
        """
        waiting = _QueuedVote(event)
        return await self._wait(waiting, waiting.done)

    async def run(self, work: Callable[[], T]) -> T:
        """Run any other job that writes to the store, and return its result. Errors of the job are raised here.

        Raises:
            StorageError: the store is unreachable, full or too busy.
        """
        done: Future[T] = Future()
        return await self._wait(_QueuedWrite(lambda: _settle(done, work)), done)

    def close(self) -> None:
        """Finish the waiting jobs, then end the thread."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join(2 * self._patience)

    async def _wait(self, item: "_QueuedVote | _QueuedWrite", done: "Future[T]") -> T:
        try:
            if self._closed:
                raise queue.Full
            self._queue.put_nowait(item)
        except queue.Full:
            raise StorageError("the server is busy; nothing was stored, so try again shortly") from None
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
            self._commit_together([item for item in taken if isinstance(item, _QueuedVote)])
            for item in taken:
                if isinstance(item, _QueuedWrite):
                    item.run()

    def _commit_together(self, waiting: "list[_QueuedVote]") -> None:
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


class _QueuedVote:
    """A vote or a withdrawal that waits for its commit."""

    def __init__(self, event: Cast | Retract) -> None:
        self.event = event
        self.done: Future[Receipt] = Future()


class _QueuedWrite:
    """Any other job that writes to the store."""

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
