"""How one rating server is set up."""

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from d3po.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class WebSettings:
    """A server's address, its pictures, and how much it puts up with."""

    run: str
    """The run's name, as pages show it."""
    images: str
    """Folder or fsspec URL that the paths of pictures are relative to."""
    host: str = "127.0.0.1"
    port: int = 8000
    public_url: str | None = None
    """The address people type, where a proxy stands in front."""
    lease_seconds: float = 600.0
    gold_rate: float = 0.08
    """Share of questions that check the annotator, where there are such."""
    repeat_rate: float = 0.03
    """Share of pairs after which somebody is asked one of theirs again, sides swapped."""
    body_limit: int = 64 * 1024
    """Bytes of a request's body."""
    session_days: int = 30
    requests_per_second: float = 40.0
    """Sustained requests of one annotator; a queue of four grids is some thirty pictures."""
    request_burst: float = 400.0
    requests_at_once: int = 1024
    """Requests under way; whoever comes on top is told to come back."""
    strangers_per_second: float = 50.0
    """Sustained requests from one address without a session, pages and scripts included."""
    stranger_burst: float = 400.0
    joins_per_minute: float = 12.0
    """Sustained attempts to exchange a token, from one address."""
    store_patience: float = 10.0
    """Seconds until a request that waits for the store is told to come back later."""

    def __post_init__(self) -> None:
        if self.public_url is not None:
            try:
                parts = urlsplit(self.public_url)
            except ValueError:  # half an IPv6 address
                parts = urlsplit("")
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
                raise ConfigError(f"--url {self.public_url} is not an address such as https://rate.example.org; it may hold no path")

    @property
    def owner_needs_no_token(self) -> bool:
        """Whether only this machine can reach the server, so that who comes is its owner."""
        return self.public_url is None and is_loopback(self.host)

    @property
    def https(self) -> bool:
        """Whether browsers come by https."""
        return self.public_url is not None and self.public_url.startswith("https://")

    def link(self, path: str = "/") -> str:
        """The address of a page."""
        if self.public_url is not None:
            return self.public_url.rstrip("/") + path
        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}{path}"

    def trusts_host(self, header: str) -> bool:
        """Whether a request's Host is a name of this server: a strange one means that somebody's domain was pointed here (DNS rebinding)."""
        name = host_name(header)
        if self.public_url is not None and name == urlsplit(self.public_url).hostname:
            return True
        if name in ("localhost", "127.0.0.1", "::1", self.host.lower()):
            return True
        return self.host in ("0.0.0.0", "::") and (is_address(name) or name in _own_names())


def host_name(header: str) -> str:
    """The name in a Host header, without port and brackets, in lower case; empty if it makes no sense."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def is_address(name: str) -> bool:
    """Whether a name is a bare IP address: nobody can point a domain at us under that name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _own_names() -> set[str]:
    name = socket.gethostname().lower()
    return {name, name.partition(".")[0], f"{name.partition('.')[0]}.local"}
