"""What uvicorn's HTTP/1.1 lacks: time limits for requests and answers, room for newcomers, and our headers on what it answers by itself."""

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
"""How long a request may take to arrive, from its first byte to its last; and a connection without one."""
STALL_SECONDS = 20.0
"""How long somebody may read nothing of an answer that waits for them."""


def _connections_possible() -> int:
    """Half of the files this process may open, 512 at most; the other half is for the database, pictures and libraries."""
    if sys.platform == "win32":
        return 512
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 512 if soft == resource.RLIM_INFINITY else min(512, soft // 2)


MOST_CONNECTIONS = _connections_possible()


@runtime_checkable
class Evictable(Protocol):
    """A connection as far as making room goes."""

    @property
    def peer(self) -> str:
        """The address it comes from."""
        ...

    @property
    def heard(self) -> float:
        """When something came last, in seconds."""
        ...

    @property
    def busy(self) -> bool:
        """Whether a whole request of it is being answered."""
        ...

    @property
    def evicted(self) -> bool:
        """Whether it was closed for the sake of others."""
        ...

    def evict(self) -> None:
        """Close it for the sake of others."""
        ...


class Connection(H11Protocol):
    """One connection. Where there are too many, the address with the most of them loses the one that has been silent longest."""

    _arriving: TimerHandle | None = None
    _stalling: TimerHandle | None = None
    evicted = False
    heard = 0.0
    """When something came last, by the event loop's clock."""

    @property
    def peer(self) -> str:
        """The address it comes from."""
        return self.client[0] if self.client else ""

    @property
    def busy(self) -> bool:
        """Whether a whole request of it is being answered."""
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
            self.transport.abort()  # to close would wait for somebody who does not read
        else:
            super().timeout_keep_alive_handler()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_stall(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_stalling()

    def evict(self) -> None:
        """Close it for the sake of others."""
        self.evicted = True
        self.transport.abort()

    @property
    def _request(self) -> RequestResponseCycle | None:
        """The newest request that has a head; uvicorn says that there always is one."""
        return cast("RequestResponseCycle | None", self.cycle)

    def _watch_arrival(self) -> None:
        """Give a request that has begun its time; what is whole, or not begun, needs none."""
        begun = self.conn.their_state is h11.SEND_BODY or (self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0]))
        if not begun:
            self._stop_waiting()
        elif self._arriving is None:
            self._arriving = self.loop.call_later(REQUEST_SECONDS, self._too_slow)

    def _too_slow(self) -> None:
        self._arriving = None
        if self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            self.transport.close()  # it never said anything
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
        """Answer by itself, if nothing has been answered yet, and close."""
        if self.transport.is_closing() or self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return self.transport.abort()
        if request := self._request:
            request.disconnected = True  # the app waits for the rest of the request; it will not come
            request.message_event.set()
        body = json.dumps({"detail": detail}).encode()
        own = {"content-type": "application/json", "content-length": str(len(body)), "cache-control": "no-store", "connection": "close"}
        for event in (
            h11.Response(status_code=status, headers=list((security.HEADERS | own).items()), reason=b""),
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
    """Close one connection: of the address with the most, the one that has been silent longest, unless a request of it is being answered."""
    idle = [each for each in connections if not each.busy and not each.evicted]
    if idle:
        most = Counter(each.peer for each in idle)
        min(idle, key=lambda each: (-most[each.peer], each.heard)).evict()
