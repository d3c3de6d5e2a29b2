"""How one rating server is set up."""

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from d3po.errors import ConfigError

DEFAULT_PORTS = {"http": 80, "https": 443}


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
    requests_at_once: int = 256
    """Requests that have arrived and are being answered; whoever comes on top is told to come back."""
    requests_of_one: int = 64
    """Of these, at most so many of one annotator, or of strangers at one address."""
    strangers_per_second: float = 50.0
    """Sustained requests from one address without a session, pages and scripts included."""
    stranger_burst: float = 400.0
    joins_per_minute: float = 12.0
    """Sustained attempts to exchange a token, from one address."""
    store_patience: float = 10.0
    """Seconds until a request that waits for the store is told to come back later."""

    def __post_init__(self) -> None:
        if self.public_url is not None and not _is_address_of_site(self.public_url):
            raise ConfigError(f"--url {self.public_url} is not an address such as https://rate.example.org; it may hold no path")

    @property
    def origin(self) -> str:
        """How browsers name the site in what they send from its pages."""
        parts = urlsplit(self.link(""))
        default = DEFAULT_PORTS[parts.scheme] == self.public_port
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}" if default else f"{parts.scheme}://{host}:{self.public_port}"

    @property
    def public_port(self) -> int:
        """The port that browsers go to."""
        parts = urlsplit(self.link(""))
        return parts.port or DEFAULT_PORTS[parts.scheme]

    @property
    def https(self) -> bool:
        """Whether browsers come by https."""
        return self.public_url is not None and urlsplit(self.public_url).scheme == "https"

    def invitation_link(self, token: str) -> str:
        """The address that lets somebody in; what follows # is never sent to a server, so no log of one on the way has it."""
        return self.link(f"/join#{token}")

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
        return self.host in ("0.0.0.0", "::") and (is_address(name) or name in _host_names())


def _is_address_of_site(url: str) -> bool:
    try:
        parts = urlsplit(url)
        rest = parts.path.rstrip("/"), parts.query, parts.fragment, parts.username, parts.password
        return parts.scheme in DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0 and not any(rest)
    except ValueError:
        return False


def host_name(header: str) -> str:
    """The name in a Host header, without port and brackets, in lower case; empty if it makes no sense."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def is_address(name: str) -> bool:
    """Whether a name is a bare IP address: nobody can point a domain at us under that name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _host_names() -> set[str]:
    name = socket.gethostname().lower()
    return {name, name.partition(".")[0], f"{name.partition('.')[0]}.local"}
