"""Recording votes and withdrawals, within the caller's transaction."""

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Insert, bindparam, insert, select, update
from sqlalchemy import exc as sql
from sqlalchemy.orm import aliased

from d3po.errors import VoteConflictError, VoteError
from d3po.preferences.records import Cast
from d3po.store.checks import cast_hash, check_answer, check_cast, check_id, payload_hash
from d3po.store.reading import next_sequence
from d3po.store.slots import take_slot
from d3po.store.tables import AssignmentRow, QuestionRow, VoteItemRow, VoteRow

ATTEMPTS = 5
"""How often an event is tried that collides with a concurrent event on the same question or with the same id."""


@dataclass(frozen=True, kw_only=True)
class Retract:
    """The withdrawal of a vote as a client sends it. `id` is the client's own UUID."""

    id: str
    vote: str
    """The id of the vote that is withdrawn."""
    annotator: int


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """The confirmation of an event, given only after it is on disk."""

    vote: str
    """The id of the event in the store: the one that was sent, or an earlier one with the same effect."""
    status: Literal["new", "duplicate"]
    assignment: str


def record_event(connection: Connection, event: Cast | Retract, now: int, expires: int) -> Receipt | VoteError:
    """Record an event and return its receipt. If the event is invalid, nothing is written and the error is returned.

    Raises:
        IntegrityError: another transaction recorded an event with the same id, or on the same vote, at the same time.
    """
    try:
        return _cast(connection, event, now) if isinstance(event, Cast) else _retract(connection, event, now, expires)
    except VoteError as error:
        return error


def record_alone(connection: Connection, event: Cast | Retract, now: int, expires: int) -> Receipt | VoteError:
    """Record an event in its own savepoint, and try again if another transaction recorded a colliding one first.

    Returns the receipt, or the error if the event is invalid or collided `ATTEMPTS` times; nothing is written then.
    """
    reason = ""
    for _ in range(ATTEMPTS):
        try:
            with connection.begin_nested():
                return record_event(connection, event, now, expires)
        except sql.IntegrityError as error:
            reason = str(error.orig).splitlines()[0]
    return VoteError(f"the vote {event.id} cannot be recorded: {reason}")


# Statements that run for every vote. They are built once, since building them takes longer than running them.

_known, _newest, _later = aliased(VoteRow), aliased(VoteRow), aliased(VoteRow)

_ASSIGNMENT = (
    select(
        AssignmentRow.id,
        AssignmentRow.question_id,
        AssignmentRow.annotator_id,
        AssignmentRow.state,
        AssignmentRow.overlap_slot,
        AssignmentRow.shown,
        QuestionRow.kind,
        _known.payload_hash.label("recorded"),
        select(_newest.id)
        .where(
            _newest.question_id == AssignmentRow.question_id,
            _newest.annotator_id == AssignmentRow.annotator_id,
            ~select(_later.id).where(_later.supersedes == _newest.id).exists(),
        )
        .scalar_subquery()
        .label("newest"),
    )
    .join(QuestionRow, QuestionRow.id == AssignmentRow.question_id)
    .outerjoin(_known, _known.id == bindparam("event"))
    .where(AssignmentRow.id == bindparam("assignment"))
    .with_for_update(key_share=True, of=AssignmentRow)
)
"""The assignment, locked, with the payload hash of the event with this id, if it exists, and the newest event on the annotator's question."""

_CAST = select(VoteRow.assignment_id).where(
    VoteRow.id == bindparam("vote"), VoteRow.annotator_id == bindparam("annotator"), VoteRow.action == "cast"
)

_SET = update(AssignmentRow).where(AssignmentRow.id == bindparam("assignment"))

_INSERT: dict[str, Insert] = {}
"""The insert statement by dialect, on which the source of sequence numbers depends."""


def _cast(connection: Connection, cast: Cast, now: int) -> Receipt:
    check_cast(cast)
    assignment = connection.execute(_ASSIGNMENT, {"assignment": cast.assignment, "event": cast.id}).one_or_none()
    if assignment is None or assignment.annotator_id != cast.annotator:
        raise VoteError(f"there is no assignment {cast.assignment[:50]!r} of annotator {cast.annotator}; ask for questions first")
    sent = cast_hash(cast)
    if _came_before(assignment, cast.id, sent):
        return Receipt(vote=cast.id, status="duplicate", assignment=assignment.id)
    check_answer(assignment.kind, assignment.shown, cast.answer)
    _insert(connection, cast.id, assignment, now, sent, assignment.newest, cast)
    if assignment.state != "answered":
        slot = assignment.overlap_slot if assignment.state == "leased" else take_slot(connection, assignment.question_id)
        connection.execute(_SET, {"assignment": assignment.id, "state": "answered", "overlap_slot": slot})
    return Receipt(vote=cast.id, status="new", assignment=assignment.id)


def _retract(connection: Connection, retract: Retract, now: int, expires: int) -> Receipt:
    check_id(retract.id)
    id = connection.execute(_CAST, {"vote": retract.vote, "annotator": retract.annotator}).scalar_one_or_none()
    if id is None:
        raise VoteError(f"annotator {retract.annotator} has cast no vote {retract.vote[:50]!r}")
    assignment = connection.execute(_ASSIGNMENT, {"assignment": id, "event": retract.id}).one()
    sent = payload_hash("retract", retract.vote, retract.annotator)
    if _came_before(assignment, retract.id, sent):
        return Receipt(vote=retract.id, status="duplicate", assignment=assignment.id)
    replaced = connection.execute(select(VoteRow.id).where(VoteRow.supersedes == retract.vote)).scalar_one_or_none()
    if replaced is not None:
        return Receipt(vote=replaced, status="duplicate", assignment=assignment.id)
    _insert(connection, retract.id, assignment, now, sent, retract.vote, None)
    slot = take_slot(connection, assignment.question_id) if assignment.overlap_slot is None else assignment.overlap_slot
    state = "lost" if slot is None else "leased"
    connection.execute(_SET, {"assignment": assignment.id, "state": state, "overlap_slot": slot, "lease_expires_at": expires})
    return Receipt(vote=retract.id, status="new", assignment=assignment.id)


def _came_before(assignment: Any, id: str, sent: str) -> bool:
    if assignment.recorded not in (None, sent):
        raise VoteConflictError(f"the id {id} was used for something else; make a new UUID for each vote")
    return assignment.recorded is not None


def _insert(connection: Connection, id: str, assignment: Any, now: int, sent: str, supersedes: str | None, cast: Cast | None) -> None:
    """Insert an event: the vote `cast`, or a withdrawal if that is None."""
    if connection.dialect.name not in _INSERT:
        _INSERT[connection.dialect.name] = insert(VoteRow).values(sequence=next_sequence(connection))
    connection.execute(
        _INSERT[connection.dialect.name],
        {
            "id": id,
            "assignment_id": assignment.id,
            "question_id": assignment.question_id,
            "annotator_id": assignment.annotator_id,
            "action": "cast" if cast else "retract",
            "outcome": cast.answer.outcome if cast else None,
            "winner_id": cast.answer.winner if cast else None,
            "reason": cast.answer.reason if cast else None,
            "supersedes": supersedes,
            "rt_ms": cast.rt_ms if cast else None,
            "client": cast.client if cast else None,
            "payload_hash": sent,
            "received_at": now,
        },
    )
    if cast and cast.answer.values:
        connection.execute(
            insert(VoteItemRow),
            [
                {"vote_id": id, "question_id": assignment.question_id, "image_id": image, "value": value}
                for image, value in cast.answer.values.items()
            ],
        )
