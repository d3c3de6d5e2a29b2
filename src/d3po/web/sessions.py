"""Finds the session of a cookie, and caches it for some seconds so that not every picture needs a query."""

import time
from collections import OrderedDict
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from d3po.preferences.records import Role
from d3po.store import People

REMEMBERED_SECONDS = 3.0
"""How long a session is cached. For this long, another server on the same store may still accept a revoked session; this server forgets it at once."""
REMEMBERED = 4096


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The person who sends a request."""

    id: int
    """The annotator's id."""
    handle: str
    role: Role


class BrowserSessions:
    """Looks up sessions. Only a session identifies the caller: a request from this machine may come from a proxy, or from anybody who is logged in to it."""

    def __init__(self, people: People) -> None:
        self._people = people
        self._seen: OrderedDict[str, tuple[float, Caller | None]] = OrderedDict()

    def remembered(self, secret: str | None) -> tuple[bool, Caller | None]:
        """Whether the session is cached, and the caller: (False, None) if the store must be asked."""
        if secret is None:
            return True, None
        until, caller = self._seen.get(secret, (0.0, None))
        return until > time.monotonic(), caller

    async def look_up(self, secret: str) -> Caller | None:
        """Look up a session in the store, and cache the result. None if the session is not valid.

        Raises:
            StorageError: the store cannot be used.
        """
        session = await run_in_threadpool(self._people.session, secret)
        caller = None if session is None else Caller(id=session.id, handle=session.handle, role=session.role)
        self._seen.pop(secret, None)
        self._seen[secret] = (time.monotonic() + REMEMBERED_SECONDS, caller)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return caller

    def forget(self) -> None:
        """Clear the cache, because a session was ended."""
        self._seen.clear()
