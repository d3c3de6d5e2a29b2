"""Whoever is slow, silent, or says nothing that makes sense keeps nobody else waiting; and every answer carries the headers."""

import http.client
import socket
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass

import pytest
import uvicorn

from d3po.web import connections
from d3po.web.app import create_app
from d3po.web.connections import make_room
from d3po.web.security import HEADERS
from d3po.web.server import listen, uvicorn_config
from tests.web.conftest import House

BODY = b"POST /v1/session HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{"


@pytest.fixture
def port(house: House, monkeypatch: pytest.MonkeyPatch) -> Generator[int, None, None]:
    """A server with little patience and room for eight."""
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.5)
    monkeypatch.setattr(connections, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 8)
    settings = house.settings(joins_per_minute=1e9)
    with closing(listen("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn_config(create_app(house.store, settings), settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def said(port: int, sent: bytes = b"") -> bytes:
    """What the server answers to these bytes until it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(sent)
        answer = b""
        while more := connection.recv(65536):
            answer += more
        return answer


def healthy(port: int) -> bool:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200


def send_until_closed(connection: socket.socket, sent: bytes) -> None:
    """Send the same again and again and read nothing; the server must hang up."""
    until = time.monotonic() + 20
    with suppress(ConnectionError):
        while time.monotonic() < until:
            connection.sendall(sent)
            time.sleep(0.05)
    assert time.monotonic() < until, "it may go on for ever"


def assert_refused(answer: bytes, status: int) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert body.startswith(b'{"detail":')
    sent = {name.lower(): value for name, _, value in (line.partition(": ") for line in head.decode().splitlines()[1:])}
    assert {name: sent.get(name) for name in HEADERS} == HEADERS
    assert sent["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "sent",
    [
        b"what?\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /" + b"x" * 40_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"POST /v1/session HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n",
    ],
    ids=["no HTTP", "no host", "two hosts", "negative length", "long line", "TLS", "bad chunk"],
)
def test_what_is_no_request_is_refused_with_the_headers(port: int, sent: bytes) -> None:
    assert_refused(said(port, sent), 400)
    assert healthy(port)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade, close",
        b"OPTIONS * HTTP/1.1",
        b"CONNECT example.org:443 HTTP/1.1",
        b"GET http://example.org/ HTTP/1.1",
        b"GET /%00%ff%2e%2e/ HTTP/1.1",
        b"BREW /rate HTTP/1.1",
        b"POST / HTTP/1.0\r\nContent-Length: 0",
        b"PRI * HTTP/2.0",
    ],
    ids=["websocket", "asterisk", "connect", "proxy", "path", "method", "HTTP/1.0", "HTTP/2"],
)
def test_odd_requests_are_answered_with_the_headers(port: int, sent: bytes) -> None:
    answer = said(port, sent + b"\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    head = answer.partition(b"\r\n\r\n")[0].decode().lower()
    assert 200 <= int(head.split()[1]) < 500
    assert all(f"{name}: {value.lower()}" in head for name, value in HEADERS.items())


def test_a_request_that_does_not_arrive_is_given_up_with_the_headers(port: int) -> None:
    begun = time.monotonic()
    assert_refused(said(port, BODY), 408)
    assert_refused(said(port, b"GET /rate HTTP/1.1\r\nHo"), 408)
    assert said(port) == b"", "a browser that connects ahead of time expects no answer"
    assert time.monotonic() - begun < 15


def test_a_byte_now_and_then_buys_no_time(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(BODY)
        send_until_closed(connection, b" ")


def test_a_stranger_s_unread_body_does_not_keep_the_connection(port: int) -> None:
    answer = said(port, BODY.replace(b"/session", b"/votes"))
    assert answer.startswith(b"HTTP/1.1 401 ")


def test_a_connection_serves_one_request_after_another_for_longer_than_one_may_take(port: int) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        own = None
        for _ in range(4):
            connection.request("POST", "/v1/session", b'{"token": "made-up"}', {"content-type": "application/json"})
            reply = connection.getresponse()
            assert (reply.status, reply.getheader("connection")) == (403, None)
            reply.read()
            own = connection.sock
            time.sleep(0.3)
        assert connection.sock is own


def test_requests_sent_ahead_are_answered_in_turn(port: int) -> None:
    one = b"GET /static/icon.svg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    answer = said(port, one * 3 + one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert answer.count(b"HTTP/1.1 200 ") == 4


def test_unfinished_requests_by_the_dozen_keep_nobody_out(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 600.0)
    with ExitStack() as stack:
        for part in (BODY, BODY[:20], b""):
            for _ in range(15):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20)).sendall(part)
                assert healthy(port)


def test_who_reads_nothing_is_left(port: int) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        send_until_closed(connection, 50 * b"GET /static/rate.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert healthy(port)


@dataclass(eq=False)
class Held:
    """A connection as far as making room goes."""

    peer: str
    heard: float
    busy: bool = False
    evicted: bool = False

    def evict(self) -> None:
        self.evicted = True


def test_room_is_made_at_the_cost_of_the_address_that_takes_most_of_it() -> None:
    many = [Held("203.0.113.7", heard) for heard in (5.0, 3.0, 4.0)]
    one, busy = Held("198.51.100.1", 0.0), Held("203.0.113.7", 1.0, busy=True)
    everybody = [one, busy, *many]
    gone = [gone_after(everybody) for _ in range(5)]
    assert gone == [many[1], many[2], one, many[0], None], "of one each, that which was silent longest; never one that is being answered"


def gone_after(everybody: list[Held]) -> Held | None:
    """Which of them has to go for one more."""
    before = [each for each in everybody if each.evicted]
    make_room(everybody)
    return next((each for each in everybody if each.evicted and each not in before), None)
