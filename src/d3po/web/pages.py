"""Serves the HTML pages and their static files. They contain no data of the run's people: all of that comes through the API."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.responses import RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from d3po.version import __version__

PAGES = {"/rate": "rate.html.j2", "/join": "join.html.j2", "/dashboard": "dashboard.html.j2"}
KEPT_PAGE = "/rate"
MEDIA_TYPES = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json",
}


@dataclass(frozen=True, kw_only=True)
class StaticFile:
    """A static file of the pages, read when the server starts."""

    content: bytes
    media_type: str
    etag: str


def add_pages(app: FastAPI, *, run: str) -> None:
    """Add the routes of the pages and their files. The set of files is fixed at the start, so a path from a client is only looked up in it."""
    environment = Environment(loader=PackageLoader("d3po.web"), autoescape=True, undefined=StrictUndefined)
    router = APIRouter(include_in_schema=False)
    pages = {path: environment.get_template(template).render(run=run, version=__version__) for path, template in PAGES.items()}
    known = static_files()
    for path, html in pages.items():
        router.add_api_route(path, _page(html, "text/html"), methods=["GET"])
    worker = environment.get_template("worker.js.j2").render(files=_kept(known), digest=_digest(pages[KEPT_PAGE], known))
    router.add_api_route("/worker.js", _page(worker, "text/javascript"), methods=["GET"])
    router.add_api_route("/", _front(environment.get_template("front.html.j2").render()), methods=["GET"])
    router.add_api_route("/static/{name:path}", _static(known), methods=["GET"])
    app.include_router(router)


def _kept(known: Mapping[str, StaticFile]) -> list[str]:
    """The paths that browsers cache for when the server cannot be reached: the rating page and its files."""
    return [KEPT_PAGE, *(f"/static/{name}" for name in sorted(known))]


def _digest(page: str, known: Mapping[str, StaticFile]) -> str:
    """A hash of everything that browsers cache, so that each version is cached under another name."""
    return hashlib.sha256("".join([page, *(f"{name}{known[name].etag}" for name in sorted(known))]).encode()).hexdigest()[:16]


def static_files() -> dict[str, StaticFile]:
    """Read all static files, by their path below /static/."""
    found: dict[str, StaticFile] = {}
    pending: list[tuple[str, Traversable]] = [("", files("d3po.web") / "static")]
    while pending:
        prefix, folder = pending.pop()
        for entry in folder.iterdir():
            if entry.is_dir():
                pending.append((f"{prefix}{entry.name}/", entry))
            elif media_type := MEDIA_TYPES.get(PurePosixPath(entry.name).suffix):
                content = entry.read_bytes()
                etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
                found[prefix + entry.name] = StaticFile(content=content, media_type=media_type, etag=etag)
    return found


def _page(content: str, media_type: str) -> Callable[[], Response]:
    def page() -> Response:
        return Response(content, media_type=media_type, headers={"cache-control": "no-cache"})

    return page


def _front(stranger: str) -> Callable[[Request], Response]:
    def front(request: Request) -> Response:
        answer = Response(stranger, media_type="text/html") if request.state.caller is None else RedirectResponse("/rate")
        answer.headers["cache-control"] = "no-store"
        return answer

    return front


def _static(known: Mapping[str, StaticFile]) -> Callable[[str, Request], Response]:
    def static(name: str, request: Request) -> Response:
        file = known.get(name)
        if file is None:
            raise HTTPException(404, "there is no such file")
        headers = {"etag": file.etag, "cache-control": "no-cache"}  # browsers ask each time, and get a few bytes if the file is unchanged
        if file.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)

    return static
