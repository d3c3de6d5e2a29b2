"""The API for annotators: their session, their questions, votes and pictures."""

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from d3po.errors import VoteConflictError, VoteError
from d3po.preferences.records import Answer, Assigned, Cast, Kind
from d3po.store import Retract
from d3po.web import security
from d3po.web.app_state import AppState, CurrentState, CurrentUser
from d3po.web.messages import (
    MOST_AT_ONCE,
    MOST_PICTURES,
    Acknowledged,
    Ballot,
    Item,
    Join,
    Me,
    Problem,
    QuestionPicture,
    Queue,
    Retracted,
    Withdrawal,
)
from d3po.web.picture_files import PICTURE, ServedPicture, reply
from d3po.web.sessions import Caller

RATE_MINUTES = 5
INSTRUCTIONS: dict[Kind, str] = {
    "pair": "Which picture is better?",
    "best_worst": "Choose the best picture, then the worst.",
    "rank": "Put the pictures in order, best first.",
    "grid": "Mark the pictures that are bad.",
    "thumb": "Is this picture good?",
    "score": "How good is this picture, from 1 to 5?",
}
REFUSED: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem} for code in (400, 401, 403, 404, 409, 413, 415, 422, 429, 503)
}  # the errors that any route may return; schemathesis checks the app against them

router = APIRouter(prefix="/v1", tags=["label"], responses=REFUSED)


@router.post("/session", status_code=204)
async def join(body: Join, app_state: CurrentState) -> Response:
    """Exchange an invitation for a session, which is kept in a cookie that scripts cannot read."""
    lifetime = app_state.settings.session_days * 86_400
    secret = await app_state.writer.run(lambda: app_state.store.people.exchange(body.token, lifetime=float(lifetime)))
    if secret is None:
        raise HTTPException(403, "this invitation is not valid: it was already used, has expired or was withdrawn")
    return Response(status_code=204, headers={"set-cookie": security.set_cookie(app_state.settings, secret, lifetime)})


@router.delete("/session", status_code=204)
async def leave(request: Request, app_state: CurrentState, _: CurrentUser) -> Response:
    """End the session."""
    secret = security.read_cookie(app_state.settings, request.headers)
    if secret is not None:
        await app_state.writer.run(lambda: app_state.store.people.leave(secret))
        app_state.sessions.forget()
    return Response(status_code=204, headers={"set-cookie": security.set_cookie(app_state.settings, "", 0)})


@router.get("/me")
async def me(app_state: CurrentState, caller: CurrentUser) -> Me:
    """Return who the caller is, and the caller's progress."""
    return await run_in_threadpool(_me, app_state, caller)


@router.get("/queue")
async def queue(app_state: CurrentState, caller: CurrentUser, n: Annotated[int, Query(ge=1, le=MOST_AT_ONCE)] = 4) -> Queue:
    """Lease questions to the caller. Later calls return the same questions until they are answered."""
    settings = app_state.settings
    checks = {"gold_rate": settings.gold_rate, "repeat_rate": settings.repeat_rate}
    assigned = await app_state.writer.run(
        lambda: app_state.store.questions.lease(caller.id, n, lease_seconds=settings.lease_seconds, **checks)
    )
    app_state.assignments.put(caller.id, assigned)
    return await run_in_threadpool(_queue, app_state, caller, assigned)


@router.post("/votes", status_code=201, responses={200: {"model": Acknowledged}})
async def vote(body: Ballot, response: Response, app_state: CurrentState, caller: CurrentUser) -> Acknowledged:
    """Store a vote. The response is 201 once it is on disk, or 200 if it was stored before."""
    assignment = str(body.assignment)
    assigned = app_state.assignments.remembered(assignment, caller.id) or await run_in_threadpool(
        app_state.assignments.assigned, assignment, caller.id
    )
    if assigned is None:
        raise HTTPException(404, "you have no such assignment")
    cast = Cast(
        id=str(body.id), assignment=assignment, annotator=caller.id,
        answer=answer_of(body, assigned.shown), rt_ms=body.rt_ms, client=body.client,
    )  # fmt: skip
    receipt = await app_state.writer.record(cast)
    if receipt.status == "new":
        app_state.assignments.answered(caller.id, 1)
    response.status_code = 201 if receipt.status == "new" else 200
    return Acknowledged(vote=receipt.vote, status=receipt.status)


@router.post("/votes/{vote_id}/retract")
async def retract(vote_id: UUID, body: Withdrawal, app_state: CurrentState, caller: CurrentUser) -> Retracted:
    """Withdraw a vote. Its question is asked again, with the pictures in the same order."""
    try:
        receipt = await app_state.writer.record(Retract(id=str(body.id), vote=str(vote_id), annotator=caller.id))
    except VoteConflictError:
        raise
    except VoteError as error:
        raise HTTPException(404, "you have no such vote") from error
    if receipt.status == "new":
        app_state.assignments.answered(caller.id, -1)
    return Retracted(item=await run_in_threadpool(_question, app_state, caller, receipt.assignment))


@router.get("/assignments/{assignment}/pictures/{position}", response_class=Response, responses=PICTURE)
async def picture(
    assignment: UUID, position: Annotated[int, Path(ge=0, lt=MOST_PICTURES)], request: Request, app_state: CurrentState, caller: CurrentUser
) -> Response:
    """Send a picture of a question that is assigned to the caller. The URL contains its position in the question, and nothing about its origin."""
    return reply(await run_in_threadpool(_shown_at, app_state, caller, str(assignment), position), request.headers)


def answer_of(ballot: Ballot, shown: Sequence[int]) -> Answer:
    """Convert a ballot from positions to image ids.

    Args:
        ballot: the vote as sent by the page.
        shown: the image ids in the order in which they were shown.

    Raises:
        HTTPException: a position was not shown, or is given twice.
    """
    values = {_at(shown, int(position)): float(value) for position, value in (ballot.positions or {}).items()}
    if len(values) != len(ballot.positions or {}):
        raise HTTPException(422, "positions: one of them is given twice")
    winner = None if ballot.position is None else _at(shown, ballot.position)
    return Answer(outcome=ballot.outcome, winner=winner, values=values, reason=ballot.reason)


def _at(shown: Sequence[int], position: int) -> int:
    if position >= len(shown):
        raise HTTPException(422, f"position {position}: only positions 0 to {len(shown) - 1} were shown")
    return shown[position]


def _me(app_state: AppState, caller: Caller) -> Me:
    done, left = app_state.assignments.progress(caller.id)
    rate, status = app_state.figures.rate_of(caller.id, RATE_MINUTES), app_state.journal.status()
    return Me(
        handle=caller.handle, role=caller.role, done=done, left=left, rate_per_minute=rate,
        round=status.round, phase=status.phase, message=status.message,
    )  # fmt: skip


def _queue(app_state: AppState, caller: Caller, assigned: Sequence[Assigned]) -> Queue:
    done, left = app_state.assignments.progress(caller.id)
    return Queue(items=[_item(app_state, one) for one in assigned], done=done, left=left, phase=app_state.journal.status().phase)


def _question(app_state: AppState, caller: Caller, assignment: str) -> Item | None:
    assigned = app_state.assignments.assigned(assignment, caller.id)
    return None if assigned is None else _item(app_state, assigned)


def _item(app_state: AppState, assigned: Assigned) -> Item:
    return Item(
        assignment=assigned.assignment, kind=assigned.kind, prompt=assigned.prompt, lease_expires_at=assigned.lease_expires_at,
        images=[_picture(assigned.assignment, position, app_state.pictures.read(image)) for position, image in enumerate(assigned.shown)],
        instruction=INSTRUCTIONS[assigned.kind],
    )  # fmt: skip


def _picture(assignment: str, position: int, file: ServedPicture | None) -> QuestionPicture:
    size = (None, None) if file is None else (file.width, file.height)
    return QuestionPicture(position=position, url=f"/v1/assignments/{assignment}/pictures/{position}", width=size[0], height=size[1])


def _shown_at(app_state: AppState, caller: Caller, assignment: str, position: int) -> ServedPicture | None:
    assigned = app_state.assignments.assigned(assignment, caller.id)
    return None if assigned is None or position >= len(assigned.shown) else app_state.pictures.read(assigned.shown[position])
