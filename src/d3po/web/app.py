"""Builds the web application from its parts."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from d3po.errors import StorageError, VoteConflictError, VoteError
from d3po.store import Store
from d3po.version import __version__
from d3po.web import api_admin, api_label
from d3po.web.app_state import AppState, CurrentState
from d3po.web.assignments import AssignmentCache
from d3po.web.dashboard import Overview
from d3po.web.figures import Figures
from d3po.web.middleware import SecurityMiddleware, store_away
from d3po.web.pages import add_pages
from d3po.web.picture_files import PictureReader
from d3po.web.run_log import JournalView
from d3po.web.sessions import BrowserSessions
from d3po.web.settings import WebSettings
from d3po.web.writer import Writer


def create_app(store: Store, settings: WebSettings) -> FastAPI:
    """Make the application for a store. The caller closes the store after the application has ended.

    Raises:
        ConfigError: the folder or URL of the pictures cannot be opened.
        StorageError: the store cannot be used.
    """
    app_state = _make_app_state(store, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        yield
        app_state.writer.close()

    # FastAPI's documentation pages are off, because they would load scripts from elsewhere. Administrators find the description at /v1/openapi.json.
    app = FastAPI(title="d3po", version=__version__, docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.app_state = app_state
    app.include_router(api_label.router)
    app.include_router(api_admin.router)
    add_pages(app, run=settings.run)
    app.add_api_route("/healthz", _healthz, methods=["GET"], include_in_schema=False)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(StorageError, _store_away)
    app.add_exception_handler(VoteConflictError, _conflict)
    app.add_exception_handler(VoteError, _unfit)
    app.add_middleware(SecurityMiddleware, settings=settings, sessions=app_state.sessions)
    return app


def _make_app_state(store: Store, settings: WebSettings) -> AppState:
    figures, journal = Figures(store.database), JournalView(store.journal)
    return AppState(
        settings=settings,
        store=store,
        writer=Writer(store.votes, patience=settings.store_patience, lease_seconds=settings.lease_seconds),
        pictures=PictureReader(store.pictures, settings.images),
        sessions=BrowserSessions(store.people),
        assignments=AssignmentCache(store.questions),
        journal=journal,
        figures=figures,
        overview=Overview(store, journal, figures, run=settings.run),
    )


def _healthz(app_state: CurrentState) -> dict[str, str]:
    """Report that the server works and the store responds."""
    app_state.figures.newest_vote()
    return {"status": "ok", "version": __version__}


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status_code=status, headers=headers)


def _not_valid(_: Request, error: Exception) -> JSONResponse:
    """Describe the first field that is not valid. Its value is not repeated, because it may be a secret or not even text."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    return _problem(422, f"{field}: {first['msg']}".encode("ascii", "replace").decode())


def _store_away(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StorageError)
    refusal = store_away(error)
    return _problem(refusal.status, refusal.detail, {"retry-after": str(refusal.retry_after)})


def _conflict(_: Request, error: Exception) -> JSONResponse:
    return _problem(409, str(error))


def _unfit(_: Request, error: Exception) -> JSONResponse:
    return _problem(422, str(error))
