"""Extends uvicorn's HTTP/1.1: time limits for requests and responses, a limit on connections, and security headers on errors that uvicorn sends."""

import json
import sys
from asyncio import TimerHandle, Transport
from collections import Counter
from collections.abc import Collection
from typing import Protocol, cast, runtime_checkable

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from d3po.web import security

REQUEST_SECONDS = 20.0
"""How long a request may take to arrive, from its first byte to its last, and how long a new connection may stay without a request."""
STALL_SECONDS = 20.0
"""How long a client may go without reading any of a pending response."""


def _connections_possible() -> int:
    """The most connections: half of the files that this process may open, at most 512. The other half is for the database, pictures and libraries."""
    if sys.platform == "win32":
        return 512
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 512 if soft == resource.RLIM_INFINITY else min(512, soft // 2)


MOST_CONNECTIONS = _connections_possible()


@runtime_checkable
class Evictable(Protocol):
    """What `make_room` needs of a connection."""

    @property
    def peer(self) -> str:
        """The client's address."""
        ...

    @property
    def heard(self) -> float:
        """When data came in last, in seconds."""
        ...

    @property
    def busy(self) -> bool:
        """Whether a complete request is being answered."""
        ...

    @property
    def evicted(self) -> bool:
        """Whether it was closed to make room for others."""
        ...

    def evict(self) -> None:
        """Close it to make room for others."""
        ...


class Connection(H11Protocol):
    """One connection. If there are too many, the address with the most connections loses the one that has been idle longest."""

    _arriving: TimerHandle | None = None
    _stalling: TimerHandle | None = None
    evicted = False
    heard = 0.0
    """When data came in last, by the event loop's clock."""

    @property
    def peer(self) -> str:
        """The client's address."""
        return self.client[0] if self.client else ""

    @property
    def busy(self) -> bool:
        """Whether a complete request is being answered."""
        request = self._request
        return request is not None and not request.more_body and not request.response_complete

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.heard = self.loop.time()
        self._arriving = self.loop.call_later(REQUEST_SECONDS, self._too_slow)
        if len(self.connections) > MOST_CONNECTIONS:
            make_room([each for each in self.connections if isinstance(each, Connection)])

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_waiting()
        self._stop_stalling()

    def data_received(self, data: bytes) -> None:
        self.heard = self.loop.time()
        super().data_received(data)
        self._watch_arrival()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_arrival()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        self._refuse(400, "this is not HTTP as this server reads it")

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # closing would wait for a client that does not read
        else:
            super().timeout_keep_alive_handler()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_stall(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_stalling()

    def evict(self) -> None:
        """Close the connection to make room for others."""
        self.evicted = True
        self.transport.abort()

    @property
    def _request(self) -> RequestResponseCycle | None:
        """The newest request whose head has arrived; None if there is none, although uvicorn's annotation says otherwise."""
        return cast("RequestResponseCycle | None", self.cycle)

    def _watch_arrival(self) -> None:
        """Start the time limit of a request that is arriving. One that is complete, or has not begun, has no limit."""
        begun = self.conn.their_state is h11.SEND_BODY or (self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0]))
        if not begun:
            self._stop_waiting()
        elif self._arriving is None:
            self._arriving = self.loop.call_later(REQUEST_SECONDS, self._too_slow)

    def _too_slow(self) -> None:
        self._arriving = None
        if self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            self.transport.close()  # it never sent anything
        else:
            self._refuse(408, f"a request must arrive within {REQUEST_SECONDS:g} s")

    def _watch_stall(self, before: int) -> None:
        def look_again() -> None:
            waiting = self.transport.get_write_buffer_size()
            if waiting >= before:
                self.transport.abort()
            else:
                self._watch_stall(waiting)

        self._stalling = self.loop.call_later(STALL_SECONDS, look_again)

    def _refuse(self, status: int, detail: str) -> None:
        """Send an error response if no response has begun yet, and close the connection."""
        if self.transport.is_closing() or self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return self.transport.abort()
        if request := self._request:
            request.disconnected = True  # the application waits for the rest of the request, which will not come
            request.message_event.set()
        body = json.dumps({"detail": detail}).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), "cache-control": "no-store", "connection": "close"}
        for event in (
            h11.Response(status_code=status, headers=list((security.HEADERS | headers).items()), reason=b""),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _stop_waiting(self) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None

    def _stop_stalling(self) -> None:
        if self._stalling is not None:
            self._stalling.cancel()
            self._stalling = None


def make_room(connections: Collection[Evictable]) -> None:
    """Close one connection that is not busy: the one that has been idle longest, among those of the address with the most connections."""
    idle = [each for each in connections if not each.busy and not each.evicted]
    if idle:
        most = Counter(each.peer for each in idle)
        min(idle, key=lambda each: (-most[each.peer], each.heard)).evict()
