"""What the views share: the store, its writer, the pictures, who is who.

What a view depends on is async although it waits for nothing: FastAPI would send a plain function to another thread and back.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, HTTPException, Request

from d3po.store import Store
from d3po.web import security
from d3po.web.assignments import AssignmentCache
from d3po.web.dashboard import Overview
from d3po.web.figures import Figures
from d3po.web.picture_files import ServedPictures
from d3po.web.run_log import JournalView
from d3po.web.sessions import Caller, Sessions
from d3po.web.settings import WebSettings
from d3po.web.writer import Writer


@dataclass(frozen=True, kw_only=True)
class AppState:
    """One server's parts."""

    settings: WebSettings
    store: Store
    writer: Writer
    pictures: ServedPictures
    sessions: Sessions
    assignments: AssignmentCache
    journal: JournalView
    figures: Figures
    overview: Overview


async def app_state_of(request: Request) -> AppState:
    """The parts of the server that a request reached."""
    return request.app.state.app_state


async def current_user(request: Request) -> Caller:
    """Whoever asks, by session."""
    caller: Caller | None = getattr(request.state, "caller", None)
    if caller is None:
        raise HTTPException(security.NO_SESSION.status, security.NO_SESSION.detail)
    return caller


async def administrator(caller: Annotated[Caller, Depends(current_user)]) -> Caller:
    """Whoever asks, if an administrator."""
    if caller.role != "admin":
        raise HTTPException(403, "this is for administrators")
    return caller


CurrentState = Annotated[AppState, Depends(app_state_of)]
CurrentUser = Annotated[Caller, Depends(current_user)]
Administrator = Annotated[Caller, Depends(administrator)]
