"""The settings of a rating server."""

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from d3po.errors import ConfigError

DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, kw_only=True)
class WebSettings:
    """A server's address, the place of its pictures, and its limits."""

    run: str
    """The run's name, as pages show it."""
    images: str
    """The folder or fsspec URL that the paths of pictures are relative to."""
    host: str = "127.0.0.1"
    port: int = 8000
    public_url: str | None = None
    """The server's public address if it is behind a proxy."""
    lease_seconds: float = 600.0
    """How long a question stays reserved for the annotator to whom it was given."""
    gold_rate: float = 0.08
    """The share of questions that are gold questions, if the run has any."""
    repeat_rate: float = 0.03
    """The share of pairs after which an annotator is asked an earlier pair again, with the sides swapped."""
    body_limit: int = 64 * 1024
    """The most bytes of a request's body."""
    session_days: int = 30
    requests_per_second: float = 40.0
    """The sustained rate of requests of one annotator. A queue of four grids needs about thirty pictures."""
    request_burst: float = 400.0
    requests_at_once: int = 256
    """The most requests that are answered at the same time; any more are told to try again."""
    requests_of_one: int = 64
    """The most requests at the same time of one annotator, or from one address without a session."""
    strangers_per_second: float = 50.0
    """The sustained rate of requests from one address without a session, including pages and scripts."""
    stranger_burst: float = 400.0
    joins_per_minute: float = 12.0
    """The sustained rate of attempts to exchange an invitation, from one address."""
    store_patience: float = 10.0
    """Seconds after which a request that waits for the store is told to try again later."""

    def __post_init__(self) -> None:
        if self.public_url is not None and not _is_address_of_site(self.public_url):
            raise ConfigError(f"--url {self.public_url} is not an address such as https://rate.example.org; it may hold no path")

    @property
    def origin(self) -> str:
        """The origin of the site, as browsers send it in requests from its pages."""
        parts = urlsplit(self.link(""))
        default = DEFAULT_PORTS[parts.scheme] == self.public_port
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}" if default else f"{parts.scheme}://{host}:{self.public_port}"

    @property
    def public_port(self) -> int:
        """The port to which browsers connect."""
        parts = urlsplit(self.link(""))
        return parts.port or DEFAULT_PORTS[parts.scheme]

    @property
    def https(self) -> bool:
        """Whether browsers connect by https."""
        return self.public_url is not None and urlsplit(self.public_url).scheme == "https"

    def invitation_link(self, token: str) -> str:
        """The URL of an invitation. The part after # is never sent to a server, so no server's log contains the token."""
        return self.link(f"/join#{token}")

    def link(self, path: str = "/") -> str:
        """The URL of a page."""
        if self.public_url is not None:
            return self.public_url.rstrip("/") + path
        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}{path}"

    def trusts_host(self, header: str) -> bool:
        """Whether a request's Host header is a name of this server. An unknown name may be an attack in which a domain points here (DNS rebinding)."""
        name = host_name(header)
        if self.public_url is not None and name == urlsplit(self.public_url).hostname:
            return True
        if name in ("localhost", "127.0.0.1", "::1", self.host.lower()):
            return True
        return self.host in ("0.0.0.0", "::") and (is_address(name) or name in _host_names())


def _is_address_of_site(url: str) -> bool:
    try:
        parts = urlsplit(url)
        rest = parts.path.rstrip("/"), parts.query, parts.fragment, parts.username, parts.password
        return parts.scheme in DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0 and not any(rest)
    except ValueError:
        return False


def host_name(header: str) -> str:
    """The name in a Host header, without port and brackets, in lower case. Empty if the header is not valid."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def is_address(name: str) -> bool:
    """Whether a host name is an IP address. No domain can point here under such a name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _host_names() -> set[str]:
    name = socket.gethostname().lower()
    return {name, name.partition(".")[0], f"{name.partition('.')[0]}.local"}
