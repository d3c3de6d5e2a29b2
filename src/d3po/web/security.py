"""The checks that every request must pass, and the headers of every response. `middleware.py` applies them."""

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
"""The headers of every response, including errors."""

SAFE = frozenset({"GET", "HEAD"})
API = "/v1/"
SESSION = "/v1/session"
LONGEST_LENGTH = 20
"""The most digits of a content-length; a longer one is refused without reading the number."""
BUCKETS = 4096
"""The most callers that a rate limit remembers. The one with the oldest request is forgotten first."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a request is refused."""

    status: int
    """The HTTP status."""
    detail: str
    retry_after: int | None = None
    """After how many seconds to try again."""


NO_SESSION = Refusal(status=401, detail="open your link first: this browser has no session here")


def check(settings: WebSettings, method: str, path: str, headers: Headers) -> Refusal | None:
    """Check the head of a request. Return a refusal, or None if it may pass."""
    host = headers.get("host", "")
    if len(headers.getlist("host")) != 1 or not settings.trusts_host(host):
        return Refusal(status=400, detail="this server does not have that host name; see --host and --url of `d3po rate`")
    if path.startswith(API) and not _from_own_page(settings, host, method, headers):
        return Refusal(
            status=403, detail="the request comes from another site; if the server is behind a proxy, pass its public address as --url"
        )
    if method not in SAFE and path.startswith(API):
        return _check_body(settings, headers)
    return None


def check_stranger(method: str, path: str) -> Refusal | None:
    """Check a request without a session. Return a refusal, or None if it may pass: only pages, reading, and exchanging an invitation are allowed."""
    if method in SAFE or not path.startswith(API) or path == SESSION:
        return None
    return NO_SESSION


def cookie_name(settings: WebSettings) -> str:
    """The name of the session cookie.

    Over https the prefix `__Host-` binds the cookie to this host. Browsers do not store such a cookie over plain http. There the name contains the
    port instead, because browsers send a host's cookies to all its ports, and two runs may be served at the same time.
    """
    return "__Host-d3po" if settings.https else f"d3po-{settings.public_port}"


def set_cookie(settings: WebSettings, secret: str, max_age: int) -> str:
    """The value of a Set-Cookie header. A `max_age` of 0 seconds removes the cookie."""
    secure = "; Secure" if settings.https else ""
    return f"{cookie_name(settings)}={secret}; Max-Age={max_age}; Path=/; HttpOnly; SameSite=Strict{secure}"


def read_cookie(settings: WebSettings, headers: Headers) -> str | None:
    """The session's secret from a request's cookies, or None."""
    wanted = cookie_name(settings)
    for header in headers.getlist("cookie"):
        for pair in header.split(";"):
            name, _, value = pair.strip().partition("=")
            if name == wanted and value and len(value) <= 512 and value.isascii() and value.isprintable():
                return value
    return None


class RateLimit:
    """A token bucket for each caller: `per_second` requests sustained, `burst` at once. It is kept in memory only, so no address is ever stored."""

    def __init__(self, *, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._burst, self._clock = per_second, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> float:
        """Take one token. Return 0, or the seconds until there will be one."""
        now = self._clock()
        tokens, before = self._buckets.pop(caller, (self._burst, now))
        tokens = min(self._burst, tokens + (now - before) * self._per_second)
        granted = tokens >= 1
        self._buckets[caller] = (tokens - 1 if granted else tokens, now)
        if len(self._buckets) > BUCKETS:
            self._buckets.popitem(last=False)
        return 0.0 if granted else (1 - tokens) / self._per_second


def _from_own_page(settings: WebSettings, host: str, method: str, headers: Headers) -> bool:
    """Whether a request comes from one of this server's pages, as browsers report it.

    Other programs send no such headers. They are let through, because they hold no cookies that another site's page could misuse.
    """
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
    """The refusal of a body over the limit."""
    return Refusal(status=413, detail=f"a request may have at most {settings.body_limit} bytes")
