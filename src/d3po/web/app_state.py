"""The objects that all request handlers share, and FastAPI's dependencies that give access to them.

The dependencies are async although they wait for nothing, because FastAPI would run plain functions in another thread.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, HTTPException, Request

from d3po.store import Store
from d3po.web import security
from d3po.web.assignments import AssignmentCache
from d3po.web.dashboard import Overview
from d3po.web.figures import Figures
from d3po.web.picture_files import PictureReader
from d3po.web.run_log import JournalView
from d3po.web.sessions import BrowserSessions, Caller
from d3po.web.settings import WebSettings
from d3po.web.writer import Writer


@dataclass(frozen=True, kw_only=True)
class AppState:
    """The parts of one server."""

    settings: WebSettings
    store: Store
    writer: Writer
    pictures: PictureReader
    sessions: BrowserSessions
    assignments: AssignmentCache
    journal: JournalView
    figures: Figures
    overview: Overview


async def app_state_of(request: Request) -> AppState:
    """The parts of the server that handles a request."""
    return request.app.state.app_state


async def current_user(request: Request) -> Caller:
    """The caller of a request, found by the session.

    Raises:
        HTTPException: there is no session.
    """
    caller: Caller | None = getattr(request.state, "caller", None)
    if caller is None:
        raise HTTPException(security.NO_SESSION.status, security.NO_SESSION.detail)
    return caller


async def administrator(caller: Annotated[Caller, Depends(current_user)]) -> Caller:
    """The caller of a request, who must be an administrator.

    Raises:
        HTTPException: there is no session, or the caller is not an administrator.
    """
    if caller.role != "admin":
        raise HTTPException(403, "this is for administrators")
    return caller


CurrentState = Annotated[AppState, Depends(app_state_of)]
CurrentUser = Annotated[Caller, Depends(current_user)]
Administrator = Annotated[Caller, Depends(administrator)]
