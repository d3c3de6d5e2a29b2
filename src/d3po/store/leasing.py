"""Leasing questions to annotators, within the caller's transaction."""

import random
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, insert, literal_column, or_, select, update
from sqlalchemy.orm import aliased

from d3po.preferences.records import Assigned
from d3po.store.slots import close_slots, free_slots
from d3po.store.tables import AnnotatorRow, AssignmentRow, PromptRow, QuestionImageRow, QuestionRow

IS_OPEN = QuestionRow.open_slots > literal_column("0")
"""Written exactly as in the index of open questions, so that the index is used."""

_QUESTION = (QuestionRow.id.label("question_id"), QuestionRow.kind, QuestionRow.purpose, PromptRow.text.label("prompt"))


def select_assigned() -> Select[*tuple[Any, ...]]:
    """Select assignments, with all columns of an `Assigned`."""
    return (
        select(*_QUESTION, AssignmentRow.id, AssignmentRow.shown, AssignmentRow.lease_expires_at)
        .join(QuestionRow, QuestionRow.id == AssignmentRow.question_id)
        .join(PromptRow, PromptRow.id == QuestionRow.prompt_id)
    )


def select_open() -> Select[*tuple[Any, ...]]:
    """Select open questions that `:annotator` has neither answered nor leased, with the annotator's lost assignment of each, if there is one."""
    mine = aliased(AssignmentRow)
    return (
        select(*_QUESTION, mine.id, mine.shown)
        .join(PromptRow, PromptRow.id == QuestionRow.prompt_id)
        .outerjoin(mine, and_(mine.question_id == QuestionRow.id, mine.annotator_id == bindparam("annotator")))
        .where(IS_OPEN, or_(mine.id.is_(None), mine.state == "lost"))
    )


def assigned_from(row: Any, *, id: str | None = None, shown: Sequence[int] | None = None, expires: int | None = None) -> Assigned:
    """Make an `Assigned` from a row of `select_assigned`, or from one of `select_open` and the assignment just made."""
    return Assigned(
        assignment=id or row.id,
        question=row.question_id,
        kind=row.kind,
        purpose=row.purpose,
        prompt=row.prompt,
        shown=tuple(shown or row.shown),
        lease_expires_at=expires or row.lease_expires_at,
    )


# Statements that run for every lease. They are built once, since building them takes longer than running them.

_LOCK = select(AnnotatorRow.id).where(AnnotatorRow.id == bindparam("annotator")).with_for_update(key_share=True)

_MINE = AssignmentRow.annotator_id == bindparam("annotator"), AssignmentRow.state == "leased"

_HELD = select_assigned().where(*_MINE).order_by(AssignmentRow.created_at, QuestionRow.priority, QuestionRow.id)

_RENEW = update(AssignmentRow).where(*_MINE).values(lease_expires_at=bindparam("expires"))

_CANDIDATES, _GOLD_CANDIDATES = (
    select_open()
    .where(purpose)
    .order_by(QuestionRow.priority, QuestionRow.id)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True, key_share=True, of=QuestionRow)
    for purpose in (QuestionRow.purpose != "gold", QuestionRow.purpose == "gold")
)

_IMAGES = (
    select(QuestionImageRow.question_id, QuestionImageRow.image_id)
    .where(QuestionImageRow.question_id.in_(bindparam("questions", expanding=True)))
    .order_by(QuestionImageRow.question_id, QuestionImageRow.slot)
)

_TAKE_BACK = update(AssignmentRow).where(AssignmentRow.id == bindparam("assignment"))


def lock_annotator(connection: Connection, annotator: int) -> None:
    """Lock the annotator, so that two browser tabs of one annotator take turns and get the same questions."""
    connection.execute(_LOCK, {"annotator": annotator}).one()


def renew(connection: Connection, annotator: int, expires: int) -> list[Assigned]:
    """Extend the annotator's leases until `expires`, and return the leased questions, oldest first."""
    held = [assigned_from(row, expires=expires) for row in connection.execute(_HELD, {"annotator": annotator})]
    if held:
        connection.execute(_RENEW, {"annotator": annotator, "expires": expires})
    return held


def candidates(connection: Connection, annotator: int, limit: int, *, gold: bool) -> list[Any]:
    """Questions that the annotator may be asked next, locked; those that another transaction has locked are skipped."""
    if limit <= 0:
        return []
    return list(connection.execute(_GOLD_CANDIDATES if gold else _CANDIDATES, {"annotator": annotator, "limit": limit}))


def assign(connection: Connection, annotator: int, chosen: Sequence[Any], chance: random.Random, now: int, expires: int) -> list[Assigned]:
    """Lease the chosen `candidates` to the annotator. The pictures' order is random, or as it was if the question was shown to the annotator before."""
    if not chosen:
        return []
    ids = [row.question_id for row in chosen]
    slots, images = free_slots(connection, ids), _images(connection, ids)
    close_slots(connection, ids)
    fresh: list[dict[str, object]] = []
    assigned: list[Assigned] = []
    for row in chosen:
        id, shown = row.id, row.shown
        lease = {"overlap_slot": slots[row.question_id], "state": "leased", "lease_expires_at": expires}
        if id is None:
            id, shown = str(uuid.uuid4()), images[row.question_id]
            chance.shuffle(shown)
            whose: dict[str, object] = {"id": id, "question_id": row.question_id, "annotator_id": annotator}
            fresh.append(whose | lease | {"shown": shown, "created_at": now})
        else:
            connection.execute(_TAKE_BACK, lease | {"assignment": id})
        assigned.append(assigned_from(row, id=id, shown=shown, expires=expires))
    if fresh:
        connection.execute(insert(AssignmentRow), fresh)
    return assigned


def _images(connection: Connection, questions: Sequence[int]) -> dict[int, list[int]]:
    """Each question's image ids, in the order in which the question names them."""
    found: dict[int, list[int]] = {question: [] for question in questions}
    for question, image in connection.execute(_IMAGES, {"questions": questions}):
        found[question].append(image)
    return found
