"""The API for administrators: the dashboard, the trainer's controls, invitations, and the audit log."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from d3po.preferences.records import Role
from d3po.store import ControlState, NewInvitation, Store
from d3po.store.people import OWNER
from d3po.web.api_label import REFUSED
from d3po.web.app_state import Administrator, CurrentState
from d3po.web.messages import (
    AuditEntryMessage,
    AuditMessage,
    Control,
    ControlRequest,
    Dashboard,
    InvitationList,
    InvitationMade,
    InvitationMessage,
    InvitationRequest,
    Order,
)
from d3po.web.picture_files import PICTURE, reply
from d3po.web.sessions import Caller

DAY_SECONDS = 86_400.0
SHOWN_ENTRIES = 500

router = APIRouter(prefix="/v1", tags=["admin"], responses=REFUSED)


@router.get("/dashboard")
async def dashboard(app_state: CurrentState, _: Administrator) -> Dashboard:
    """Return everything the dashboard shows."""
    return await run_in_threadpool(app_state.overview.gather)


@router.post("/control")
async def control(body: ControlRequest, app_state: CurrentState, caller: Administrator) -> Control:
    """Tell the trainer to pause, resume, stop, train on the votes so far, or end the blind test. It reacts within seconds."""
    round = None
    if body.action == "train_now":
        round = body.round if body.round is not None else await run_in_threadpool(app_state.journal.round)
        if round is None:
            raise HTTPException(422, "round: no round has begun yet, so none can be trained")
    state = await app_state.writer.run(lambda: _control(app_state.store, caller, body.action, round))
    return Control(paused=state.paused, stop=state.stop, train_now_round=state.train_now_round)


@router.get("/invitations")
async def invitations(app_state: CurrentState, _: Administrator) -> InvitationList:
    """List all invitations, newest first, without their secrets."""
    return InvitationList(
        invitations=[InvitationMessage(**asdict(one)) for one in await run_in_threadpool(app_state.store.people.invitations)]
    )


@router.post("/invitations", status_code=201)
async def invite(body: InvitationRequest, app_state: CurrentState, caller: Administrator) -> InvitationMade:
    """Invite a person. The link is only in this response and is not stored."""
    made = await app_state.writer.run(lambda: invite_person(app_state.store, caller.handle, body.handle, body.role, body.days))
    return InvitationMade(id=made.id, handle=body.handle, link=app_state.settings.invitation_link(made.token), expires_at=made.expires_at)


@router.delete("/invitations/{invitation_id}", status_code=204)
async def revoke(invitation_id: Annotated[int, Path(ge=1, lt=2**31)], app_state: CurrentState, caller: Administrator) -> None:
    """Withdraw an invitation. The sessions opened with it end at once."""
    found = await app_state.writer.run(lambda: app_state.store.people.revoke(invitation_id, by=caller.handle))
    app_state.sessions.forget()
    if not found:
        raise HTTPException(404, "there is no such invitation")


@router.get("/audit")
async def audit(app_state: CurrentState, _: Administrator) -> AuditMessage:
    """List what administrators did, newest first."""
    entries = await run_in_threadpool(app_state.store.audit.newest, SHOWN_ENTRIES)
    intact = await run_in_threadpool(app_state.store.audit.verify)
    shown = [AuditEntryMessage(at=entry.at, actor=entry.actor, action=entry.action, detail=dict(entry.detail)) for entry in entries]
    return AuditMessage(entries=shown, intact=intact)


@router.get("/images/{image_id}", response_class=Response, responses=PICTURE)
async def image(image_id: Annotated[int, Path(ge=1, lt=2**31)], request: Request, app_state: CurrentState, _: Administrator) -> Response:
    """Send any picture of the run. Annotators get pictures by assignment instead, because consecutive ids would reveal the sides of a blind test."""
    return reply(await run_in_threadpool(app_state.pictures.read, image_id), request.headers)


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request, _: Administrator) -> dict[str, Any]:
    """Return the OpenAPI description of this API."""
    return request.app.openapi()


def _control(store: Store, caller: Caller, action: Order, round: int | None) -> ControlState:
    store.audit.append(caller.handle, action, {} if round is None else {"round": round})
    if action == "end_test":
        store.questions.close_blind()
    else:
        store.journal.control(action, caller.id, round)
    return store.journal.current_control()


def invite_person(store: Store, actor: str, handle: str, role: Role, days: int) -> NewInvitation:
    """Invite a person, and write to the audit log who did it.

    Args:
        store: the run's store.
        actor: who invites, for the audit log.
        handle: the invited person's handle.
        role: the invited person's role.
        days: for how many days the invitation is valid.

    Raises:
        VoteError: the handle belongs to a model or a rule, or to a person with another role.
        StorageError: the store or the key file cannot be used.
    """
    made = store.people.invite(handle, role, lifetime=days * DAY_SECONDS)
    store.audit.append(actor, "invite", {"invitation": made.id, "handle": handle, "role": role, "days": days})
    return made


def invite_owner(store: Store, actor: str, days: int = 1) -> NewInvitation:
    """Make an invitation for the person who started the server, and write to the audit log where it was made.

    Raises:
        StorageError: the store or the key file cannot be used.
    """
    made = store.people.invite_owner(lifetime=days * DAY_SECONDS)
    store.audit.append(actor, "invite", {"invitation": made.id, "handle": OWNER, "role": "admin", "days": days})
    return made
