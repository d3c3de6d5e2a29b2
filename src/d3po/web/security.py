"""What every request must pass, and what every answer carries. Pure checks; `gate.py` applies them."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers

from d3po.web.settings import WebSettings

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; worker-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)

HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
"""On every answer, errors included."""

SAFE = frozenset({"GET", "HEAD"})
API = "/v1/"
SESSION = "/v1/session"
LONGEST_LENGTH = 20
"""Digits of a content-length that are read as a number."""
BUCKETS = 4096
"""Callers remembered by a limit; the one longest silent is forgotten first."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a request goes no further."""

    status: int
    detail: str
    retry_after: int | None = None
    """Seconds."""


NO_SESSION = Refusal(status=401, detail="open your link first: this browser has no session here")


def check(settings: WebSettings, method: str, path: str, headers: Headers) -> Refusal | None:
    """Whether the head of a request alone is reason to refuse it."""
    host = headers.get("host", "")
    if len(headers.getlist("host")) != 1 or not settings.trusts_host(host):
        return Refusal(status=400, detail="this server does not go by that name; see --host and --url of `d3po rate`")
    if path.startswith(API) and not _from_own_page(settings, host, method, headers):
        return Refusal(status=403, detail="the request comes from another site; behind a proxy, name its address with --url")
    if method not in SAFE and path.startswith(API):
        return _check_body(settings, headers)
    return None


def check_stranger(method: str, path: str) -> Refusal | None:
    """Whether somebody without a session may ask this; what they send is not even read, a token to enter with aside."""
    if method in SAFE or not path.startswith(API) or path == SESSION:
        return None
    return NO_SESSION


def cookie_name(settings: WebSettings) -> str:
    """`__Host-` binds a cookie to this host and to https; over plain http browsers would not keep such a cookie.

    There the port is in the name: browsers send the cookies of one host to all its ports, and two runs may be served at once.
    """
    return "__Host-d3po" if settings.https else f"d3po-{settings.public_port}"


def set_cookie(settings: WebSettings, secret: str, max_age: int) -> str:
    """The value of a Set-Cookie header; a `max_age` of 0 s takes the cookie away."""
    secure = "; Secure" if settings.https else ""
    return f"{cookie_name(settings)}={secret}; Max-Age={max_age}; Path=/; HttpOnly; SameSite=Strict{secure}"


def read_cookie(settings: WebSettings, headers: Headers) -> str | None:
    """The session's secret, if the request brings one."""
    wanted = cookie_name(settings)
    for header in headers.getlist("cookie"):
        for pair in header.split(";"):
            name, _, value = pair.strip().partition("=")
            if name == wanted and value and len(value) <= 512 and value.isascii() and value.isprintable():
                return value
    return None


class RateLimit:
    """A token bucket for each caller: `per_second` sustained, `burst` at once. Kept in memory only, so no address is ever written down."""

    def __init__(self, *, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._burst, self._clock = per_second, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> float:
        """Take one token; returns 0, or the seconds until there will be one."""
        now = self._clock()
        tokens, before = self._buckets.pop(caller, (self._burst, now))
        tokens = min(self._burst, tokens + (now - before) * self._per_second)
        granted = tokens >= 1
        self._buckets[caller] = (tokens - 1 if granted else tokens, now)
        if len(self._buckets) > BUCKETS:
            self._buckets.popitem(last=False)
        return 0.0 if granted else (1 - tokens) / self._per_second


def _from_own_page(settings: WebSettings, host: str, method: str, headers: Headers) -> bool:
    """Browsers say where a request comes from. Programs say nothing; they hold no cookie that somebody else's page could use."""
    site = headers.get("sec-fetch-site")
    if site is not None and site != "same-origin" and not (site == "none" and method in SAFE):
        return False
    origin = headers.get("origin")
    return origin is None or origin in (settings.origin, f"http://{host}", f"https://{host}")


def _check_body(settings: WebSettings, headers: Headers) -> Refusal | None:
    length = headers.get("content-length")
    has_body = "transfer-encoding" in headers or (length is not None and length != "0")
    if has_body and headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return Refusal(status=415, detail="send JSON, with content-type application/json")
    if length is not None and length.isdecimal() and (len(length) > LONGEST_LENGTH or int(length) > settings.body_limit):
        return too_large(settings)
    return None


def too_large(settings: WebSettings) -> Refusal:
    """A body over the limit."""
    return Refusal(status=413, detail=f"a request may have {settings.body_limit} bytes at most")
