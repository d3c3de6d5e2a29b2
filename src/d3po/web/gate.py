"""The gate in front of the app: refuses what the head of a request forbids, finds out who asks, counts, and stamps every answer."""

import json
import logging
import math

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from d3po.errors import StorageError
from d3po.web import security
from d3po.web.security import RateLimit, Refusal
from d3po.web.sessions import Caller, Sessions
from d3po.web.settings import WebSettings

log = logging.getLogger(__name__)

RETRY_AFTER = 2
"""Seconds after which to try again a store that is away, or a server that is asked too much."""


class Gate:
    """ASGI middleware. Whom it found is in `scope["state"]["caller"]`, None for strangers."""

    def __init__(self, app: ASGIApp, *, settings: WebSettings, sessions: Sessions) -> None:
        self._app, self._settings, self._sessions = app, settings, sessions
        self._known = RateLimit(per_second=settings.requests_per_second, burst=settings.request_burst)
        self._strangers = RateLimit(per_second=settings.strangers_per_second, burst=settings.stranger_burst)
        self._under_way = 0
        self._joins = RateLimit(per_second=settings.joins_per_minute / 60, burst=settings.joins_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        answer = Answer(scope["path"], send)
        if self._under_way >= self._settings.requests_at_once:
            return await answer.refuse(
                Refusal(status=503, detail="too many are asking at once; try again shortly", retry_after=RETRY_AFTER)
            )
        self._under_way += 1
        try:
            await self._answer(scope, receive, answer)
        finally:
            self._under_way -= 1

    async def _answer(self, scope: Scope, receive: Receive, answer: "Answer") -> None:
        refusal = await self._refusal(scope)
        if refusal is not None:
            return await answer.refuse(refusal)
        try:
            await self._app(scope, self._measured(receive), answer.send)
        except Exception:
            log.exception("%s %r failed", scope["method"], scope["path"])
            if not answer.begun:
                await answer.refuse(Refusal(status=500, detail="something went wrong here; the server's log says what"))

    async def _refusal(self, scope: Scope) -> Refusal | None:
        headers = Headers(scope=scope)
        refusal = security.check(self._settings, scope["method"], scope["path"], headers)
        if refusal is not None:
            return refusal
        if scope["path"] == "/v1/session" and (wait := self._joins.take(_address(scope))):
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
        return self._too_often(caller)

    def _too_often(self, caller: Caller | None) -> Refusal | None:
        wait = 0.0 if caller is None else self._known.take(str(caller.id))
        return _slow_down(wait) if wait else None

    def _measured(self, receive: Receive) -> Receive:
        """The body, refused once it has grown too long, whatever length it was announced with."""
        length = 0

        async def measured() -> Message:
            nonlocal length
            message = await receive()
            length += len(message.get("body", b""))
            if length > self._settings.body_limit:
                refusal = security.too_large(self._settings)
                raise HTTPException(refusal.status, refusal.detail)
            return message

        return measured


class Answer:
    """One answer on its way out, with the headers that every answer has."""

    def __init__(self, path: str, send: Send) -> None:
        self._send = send
        self._private = path.startswith(security.API)
        self.begun = False

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self.begun = True
            headers = MutableHeaders(scope=message)
            headers.update(security.HEADERS)
            if self._private:
                headers.setdefault("cache-control", "no-store")
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with a refusal."""
        body = json.dumps({"detail": refusal.detail}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if refusal.retry_after is not None:
            headers.append((b"retry-after", str(refusal.retry_after).encode()))
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def store_away(error: StorageError) -> Refusal:
    """The answer while the store cannot be used: nothing is lost, come back. Why is for the log: it names paths and hosts."""
    log.warning("%s", error)
    return Refusal(
        status=503, detail="the store cannot be used just now; keep what you have and try again shortly", retry_after=RETRY_AFTER
    )


def _slow_down(seconds: float) -> Refusal:
    return Refusal(status=429, detail="too many requests; wait a moment", retry_after=max(1, math.ceil(seconds)))


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""
