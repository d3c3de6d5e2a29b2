"""The security middleware: checks each request's headers, finds its session, limits rates, and adds the security headers to every response."""

import json
import logging
import math
from collections import Counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from d3po.errors import StorageError
from d3po.web import security
from d3po.web.security import RateLimit, Refusal
from d3po.web.sessions import BrowserSessions, Caller
from d3po.web.settings import WebSettings

log = logging.getLogger(__name__)

RETRY_AFTER = 2
"""Seconds after which a client should try again if the store cannot be used, or if the server is busy."""


class SecurityMiddleware:
    """ASGI middleware. It puts the caller into `scope["state"]["caller"]`, or None for a request without a session.

    The application receives a request only when its whole body has arrived, so that a slow sender keeps nobody else waiting.
    """

    def __init__(self, app: ASGIApp, *, settings: WebSettings, sessions: BrowserSessions) -> None:
        self._app, self._settings, self._sessions = app, settings, sessions
        self._known = RateLimit(per_second=settings.requests_per_second, burst=settings.request_burst)
        self._strangers = RateLimit(per_second=settings.strangers_per_second, burst=settings.stranger_burst)
        self._joins = RateLimit(per_second=settings.joins_per_minute / 60, burst=settings.joins_per_minute)
        self._under_way: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        answer = ResponseSender(scope["path"], send)
        try:
            await self._answer(scope, receive, answer)
        except Exception:
            log.exception("%s %r failed", scope["method"], scope["path"])
            if not answer.begun:
                await answer.refuse(Refusal(status=500, detail="something went wrong; see the server's log"))

    async def _answer(self, scope: Scope, receive: Receive, answer: "ResponseSender") -> None:
        refusal = await self._refusal(scope)
        body = refusal or await _whole_body(receive, self._settings)
        if isinstance(body, Refusal):
            await answer.refuse(body)
        elif body is not None:
            await self._pass_on(scope, _replayed(body, receive), answer)

    async def _pass_on(self, scope: Scope, receive: Receive, answer: "ResponseSender") -> None:
        who = _who(scope)
        if self._is_full(who):
            refusal = Refusal(status=503, detail="too many requests at once; try again shortly", retry_after=RETRY_AFTER)
            return await answer.refuse(refusal)
        self._under_way[who] += 1
        try:
            await self._app(scope, receive, answer.send)
        finally:
            self._under_way -= Counter([who])

    async def _refusal(self, scope: Scope) -> Refusal | None:
        headers = Headers(scope=scope)
        refusal = security.check(self._settings, scope["method"], scope["path"], headers)
        if refusal is not None:
            return refusal
        if scope["path"] == security.SESSION and (wait := self._joins.take(_address(scope))):
            return _slow_down(wait)
        secret = security.read_cookie(self._settings, headers)
        known, caller = self._sessions.remembered(secret)
        if (not known or caller is None) and (wait := self._strangers.take(_address(scope))):
            return _slow_down(wait)
        if not known and secret is not None:
            try:
                caller = await self._sessions.look_up(secret)
            except StorageError as error:
                return store_away(error)
        scope.setdefault("state", {})["caller"] = caller
        if caller is None:
            return security.check_stranger(scope["method"], scope["path"])
        wait = self._known.take(str(caller.id))
        return _slow_down(wait) if wait else None

    def _is_full(self, who: str) -> bool:
        settings = self._settings
        return self._under_way.total() >= settings.requests_at_once or self._under_way[who] >= settings.requests_of_one


async def _whole_body(receive: Receive, settings: WebSettings) -> bytes | Refusal | None:
    """Receive the whole body. It is refused as soon as it is longer than the limit, whatever its announced length. None if the client disconnected."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body, more = body + message.get("body", b""), message.get("more_body", False)
        if len(body) > settings.body_limit:
            return security.too_large(settings)
    return body


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Make a `receive` that first gives the whole body, and then passes on what comes."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed


class ResponseSender:
    """One response, to which the headers of every response are added."""

    def __init__(self, path: str, send: Send) -> None:
        self._send = send
        self._private = path.startswith(security.API)
        self.begun = False

    async def send(self, message: Message) -> None:
        """Send a message, with the headers added to the first one."""
        if message["type"] == "http.response.start":
            self.begun = True
            headers = MutableHeaders(scope=message)
            headers.update(security.HEADERS)
            if self._private:
                headers.setdefault("cache-control", "no-store")
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        """Send a refusal as the response."""
        body = json.dumps({"detail": refusal.detail}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if refusal.retry_after is not None:
            headers.append((b"retry-after", str(refusal.retry_after).encode()))
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def store_away(error: StorageError) -> Refusal:
    """The response while the store cannot be used. The reason goes only to the log, because it names paths and hosts."""
    log.warning("%s", error)
    return Refusal(
        status=503, detail="the store cannot be used at the moment; keep your answers and try again shortly", retry_after=RETRY_AFTER
    )


def _slow_down(seconds: float) -> Refusal:
    return Refusal(status=429, detail="too many requests; wait a moment", retry_after=max(1, math.ceil(seconds)))


def _who(scope: Scope) -> str:
    """The key by which requests are counted: the annotator's id, or the client's address if there is no session."""
    caller: Caller | None = scope["state"]["caller"]
    return f"stranger at {_address(scope)}" if caller is None else str(caller.id)


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""
