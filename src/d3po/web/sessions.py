"""Who asks: the session behind a cookie, remembered for a moment so that not every picture costs a query."""

import time
from collections import OrderedDict
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from d3po.preferences.records import Role
from d3po.store import People

REMEMBERED_SECONDS = 3.0
"""Longest that another server on the same store honours a session after it was revoked there; this one forgets at once."""
REMEMBERED = 4096


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Somebody who may ask."""

    id: int
    """Annotator id."""
    handle: str
    role: Role


class Sessions:
    """Looks sessions up. Nothing but a session says who asks: whoever comes from this machine may be a proxy, or anybody logged in to it."""

    def __init__(self, people: People) -> None:
        self._people = people
        self._seen: OrderedDict[str, tuple[float, Caller | None]] = OrderedDict()

    def remembered(self, secret: str | None) -> tuple[bool, Caller | None]:
        """Whether the answer is known without asking the store, and the answer."""
        if secret is None:
            return True, None
        until, caller = self._seen.get(secret, (0.0, None))
        return until > time.monotonic(), caller

    async def look_up(self, secret: str) -> Caller | None:
        """Ask the store.

        Raises:
            StorageError: the store is away.
        """
        session = await run_in_threadpool(self._people.session, secret)
        caller = None if session is None else Caller(id=session.id, handle=session.handle, role=session.role)
        self._seen.pop(secret, None)
        self._seen[secret] = (time.monotonic() + REMEMBERED_SECONDS, caller)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return caller

    def forget(self) -> None:
        """Ask the store again from here on: a session was ended."""
        self._seen.clear()
