"""Votes in the store: cast, cast again, withdrawn, and read back. Events only: nothing that was said is ever changed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Insert, bindparam, func, insert, select, true, update
from sqlalchemy import exc as sql
from sqlalchemy.orm import aliased

from d3po.errors import VoteConflictError, VoteError
from d3po.preferences.records import Answer, Cast, NewQuestion, Purpose, Vote
from d3po.preferences.store.checks import cast_hash, check_answer, check_cast, check_id, payload_hash
from d3po.preferences.store.database import Database
from d3po.preferences.store.judgements import record_judgements
from d3po.preferences.store.questions import LEASE_SECONDS
from d3po.preferences.store.reading import IS_STANDING, next_sequence, select_votes, stream
from d3po.preferences.store.slots import take_slot
from d3po.preferences.tables import AssignmentRow, QuestionRow, VoteItemRow, VoteRow

ATTEMPTS = 5
"""How often an event that met another with the same id at the same moment is tried."""


@dataclass(frozen=True, kw_only=True)
class Retract:
    """The withdrawal of a vote as a client sends it. `id` is the client's own UUID."""

    id: str
    vote: str
    """The vote that is withdrawn."""
    annotator: int


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What became of an event; given only after it is on the disk."""

    vote: str
    """The event that is in the store: the one sent, or the one that had the same effect before."""
    status: Literal["new", "duplicate"]
    assignment: str


# Statements of the way that every vote takes, built once: building them takes longer than running them.

_later = aliased(VoteRow)

_LOCKED = (
    select(
        AssignmentRow.id,
        AssignmentRow.question_id,
        AssignmentRow.annotator_id,
        AssignmentRow.state,
        AssignmentRow.overlap_slot,
        AssignmentRow.shown,
        QuestionRow.kind,
    )
    .join(QuestionRow, QuestionRow.id == AssignmentRow.question_id)
    .where(AssignmentRow.id == bindparam("assignment"))
    .with_for_update(key_share=True, of=AssignmentRow)
)

_SENT = select(VoteRow.payload_hash).where(VoteRow.id == bindparam("vote"))

_NEWEST = select(VoteRow.id).where(
    VoteRow.question_id == bindparam("question"),
    VoteRow.annotator_id == bindparam("annotator"),
    ~select(_later.id).where(_later.supersedes == VoteRow.id).exists(),
)

_SET = update(AssignmentRow).where(AssignmentRow.id == bindparam("assignment"))


_INSERT: dict[str, Insert] = {}
"""By dialect."""


class Votes:
    """Writes and reads votes; each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def cast(self, vote: Cast) -> Receipt:
        """Record a vote. It replaces the annotator's standing vote on that question; one whose lease was lost is kept all the same.

        Raises:
            VoteError: the answer does not fit the question, or the question was not put to the annotator.
            VoteConflictError: the id was used for another vote.
            StorageError: nothing was recorded; send it again.
        """
        return _or_raise(self.cast_many([vote])[0])

    def retract(self, id: str, vote: str, annotator: int, *, lease_seconds: float = LEASE_SECONDS) -> Receipt:
        """Withdraw a vote, and put its question to the annotator again in the same order.

        If the vote does not stand any more, because it was withdrawn or replaced before, nothing happens and the receipt says duplicate.

        Raises:
            VoteError: the annotator has cast no such vote.
            VoteConflictError: the id was used for something else.
            StorageError: nothing was recorded; send it again.
        """
        return _or_raise(self.cast_many([Retract(id=id, vote=vote, annotator=annotator)], lease_seconds=lease_seconds)[0])

    def cast_many(self, casts: Sequence[Cast | Retract], *, lease_seconds: float = LEASE_SECONDS) -> list[Receipt | VoteError]:
        """Record votes and withdrawals with one commit: a receipt for each, or what is wrong with it, which hinders no other.

        Raises:
            StorageError: none of them was recorded; send them again.
        """

        def record(connection: Connection) -> list[Receipt | VoteError]:
            now = self._database.now()
            return [_record(connection, event, now, now + round(1000 * lease_seconds)) for event in casts]

        return self._database.write(record)

    def record_judgements(self, annotator: int, judgements: Sequence[tuple[NewQuestion, Answer]]) -> int:
        """Record what a rule, a model or an imported file says, questions included, all or none; returns how many votes were new.

        Ids follow from the annotator's handle and the question, so that recording again adds nothing. Only people take a slot of a question
        that others are asked too; a rule's or a model's judgement never answers in their stead.

        Raises:
            VoteError: a question or an answer makes no sense.
            VoteConflictError: the annotator has judged one of these before, otherwise.
        """
        return self._database.write(lambda connection: record_judgements(connection, annotator, judgements, now=self._database.now()))

    def standing(
        self, *, round: int | None = None, purpose: Purpose | None = None, after: int = 0, limit: int | None = None
    ) -> Iterator[Vote]:
        """The votes that stand, in order of their sequence numbers, read as they are needed and all as they were at one moment.

        Args:
            round: only of questions that serve this round.
            purpose: only of questions for this purpose.
            after: only with a sequence number above this. For showing and exporting; a vote may become visible after one with a higher number.
            limit: at most so many.
        """
        query = select_votes().where(IS_STANDING, VoteRow.sequence > after, _of(round, purpose)).order_by(VoteRow.sequence).limit(limit)
        with self._database.reading() as connection:
            yield from stream(connection, query)

    def count(self, *, round: int | None = None, purpose: Purpose | None = None) -> int:
        """How many votes stand."""
        query = select(func.count()).select_from(VoteRow).where(IS_STANDING)
        if round is not None or purpose is not None:
            query = query.join(QuestionRow, QuestionRow.id == VoteRow.question_id).where(_of(round, purpose))
        with self._database.reading() as connection:
            return connection.execute(query).scalar_one()


def _of(round: int | None, purpose: Purpose | None) -> Any:
    within = true() if round is None else QuestionRow.round == round
    return within if purpose is None else within & (QuestionRow.purpose == purpose)


def _or_raise(result: Receipt | VoteError) -> Receipt:
    if isinstance(result, VoteError):
        raise result
    return result


def _record(connection: Connection, event: Cast | Retract, now: int, expires: int) -> Receipt | VoteError:
    for attempt in range(ATTEMPTS):
        try:
            with connection.begin_nested():
                return _cast(connection, event, now) if isinstance(event, Cast) else _retract(connection, event, now, expires)
        except VoteError as error:
            return error
        except sql.IntegrityError:  # the same id is being recorded elsewhere; the next attempt finds it
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def _cast(connection: Connection, cast: Cast, now: int) -> Receipt:
    check_cast(cast)
    assignment = _locked(connection, cast.assignment)
    if assignment is None or assignment.annotator_id != cast.annotator:
        raise VoteError(f"there is no assignment {cast.assignment[:50]!r} of annotator {cast.annotator}; ask for questions first")
    sent = cast_hash(cast)
    if _came_before(connection, cast.id, sent):
        return Receipt(vote=cast.id, status="duplicate", assignment=assignment.id)
    check_answer(assignment.kind, assignment.shown, cast.answer)
    standing = _newest_event(connection, assignment.question_id, cast.annotator)
    _insert(connection, cast.id, assignment, now, sent, standing, cast)
    if assignment.state != "answered":
        slot = assignment.overlap_slot if assignment.state == "leased" else take_slot(connection, assignment.question_id)
        _set_assignment(connection, assignment.id, state="answered", overlap_slot=slot)
    return Receipt(vote=cast.id, status="new", assignment=assignment.id)


def _retract(connection: Connection, retract: Retract, now: int, expires: int) -> Receipt:
    check_id(retract.id)
    of = select(VoteRow.assignment_id).where(
        VoteRow.id == retract.vote, VoteRow.annotator_id == retract.annotator, VoteRow.action == "cast"
    )
    found = connection.execute(of).scalar_one_or_none()
    assignment = None if found is None else _locked(connection, found)
    if assignment is None:
        raise VoteError(f"annotator {retract.annotator} has cast no vote {retract.vote[:50]!r}")
    sent = payload_hash("retract", retract.vote, retract.annotator)
    if _came_before(connection, retract.id, sent):
        return Receipt(vote=retract.id, status="duplicate", assignment=assignment.id)
    replaced = connection.execute(select(VoteRow.id).where(VoteRow.supersedes == retract.vote)).scalar_one_or_none()
    if replaced is not None:
        return Receipt(vote=replaced, status="duplicate", assignment=assignment.id)
    _insert(connection, retract.id, assignment, now, sent, retract.vote, None)
    slot = take_slot(connection, assignment.question_id) if assignment.overlap_slot is None else assignment.overlap_slot
    state = "lost" if slot is None else "leased"
    _set_assignment(connection, assignment.id, state=state, overlap_slot=slot, lease_expires_at=expires)
    return Receipt(vote=retract.id, status="new", assignment=assignment.id)


def _locked(connection: Connection, assignment: str) -> Any:
    """The assignment with its question's kind; other transactions that want it wait."""
    return connection.execute(_LOCKED, {"assignment": assignment}).one_or_none()


def _came_before(connection: Connection, id: str, sent: str) -> bool:
    known = connection.execute(_SENT, {"vote": id}).scalar_one_or_none()
    if known not in (None, sent):
        raise VoteConflictError(f"the id {id} was used for something else; make a new UUID for each vote")
    return known is not None


def _newest_event(connection: Connection, question: int, annotator: int) -> str | None:
    """The last of the annotator's events on the question, a withdrawal or not."""
    return connection.execute(_NEWEST, {"question": question, "annotator": annotator}).scalar_one_or_none()


def _insert(connection: Connection, id: str, assignment: Any, now: int, sent: str, supersedes: str | None, cast: Cast | None) -> None:
    """Write an event: a vote, or without one a withdrawal."""
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


def _set_assignment(connection: Connection, id: str, **columns: object) -> None:
    connection.execute(_SET, {"assignment": id, **columns})
