"""Repeats: pairs that an annotator is asked a second time with the sides swapped, to measure consistency. Works within the caller's transaction."""

import random
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert, select

from d3po.preferences.records import Assigned, NewQuestion
from d3po.store.checks import dedup_key
from d3po.store.reading import IS_CURRENT
from d3po.store.recording import record_questions
from d3po.store.slots import free_slots
from d3po.store.tables import AssignmentRow, PromptRow, QuestionRow, VoteRow

GAP = 10
"""The least number of pairs that the annotator answered since, so that the first answer is forgotten."""
REACH = 40
"""How many pairs before those the repeat is drawn from."""
EVERYBODY = 1_000_000
"""The overlap of a repeat, so that every annotator can be asked it."""


def put_again(connection: Connection, annotator: int, chance: random.Random, now: int, expires: int) -> list[Assigned]:
    """Lease to the annotator one of the pairs that they answered a while ago, with its pictures in the opposite order; an empty list if there is none."""
    candidates = _candidates(connection, annotator)
    if not candidates:
        return []
    row = chance.choice(candidates)
    (question,) = record_questions(connection, [_again(row)], opened=False)
    connection.execute(select(QuestionRow.id).where(QuestionRow.id == question).with_for_update(key_share=True))
    assignment = {"id": str(uuid.uuid4()), "question_id": question, "annotator_id": annotator, "shown": row.shown[::-1]}
    lease = {
        "overlap_slot": free_slots(connection, [question])[question],
        "state": "leased",
        "created_at": now,
        "lease_expires_at": expires,
    }
    connection.execute(insert(AssignmentRow).values(assignment | lease))
    return [
        Assigned(
            assignment=str(assignment["id"]), question=question, kind="pair", purpose="repeat", prompt=row.prompt,
            shown=tuple(row.shown[::-1]), lease_expires_at=expires,
        )
    ]  # fmt: skip


def _candidates(connection: Connection, annotator: int) -> list[Any]:
    """The annotator's pairs with a winner, except the last `GAP` and those already repeated."""
    query = (
        select(QuestionRow.round, AssignmentRow.shown, PromptRow.text.label("prompt"))
        .select_from(VoteRow)
        .join(AssignmentRow, AssignmentRow.id == VoteRow.assignment_id)
        .join(QuestionRow, QuestionRow.id == VoteRow.question_id)
        .join(PromptRow, PromptRow.id == QuestionRow.prompt_id)
        .where(VoteRow.annotator_id == annotator, VoteRow.outcome == "win", IS_CURRENT)
        .where(QuestionRow.kind == "pair", QuestionRow.purpose == "train")
        .order_by(VoteRow.received_at.desc(), VoteRow.sequence.desc())
        .offset(GAP)
        .limit(REACH)
    )
    rows = connection.execute(query).all()
    known = _asked_again(connection, annotator, rows)
    return [row for row in rows if dedup_key(_again(row)) not in known]


def _asked_again(connection: Connection, annotator: int, rows: Sequence[Any]) -> set[str]:
    keys = [dedup_key(_again(row)) for row in rows]
    query = select(QuestionRow.dedup_key).join(AssignmentRow, AssignmentRow.question_id == QuestionRow.id)
    return set(connection.execute(query.where(QuestionRow.dedup_key.in_(keys), AssignmentRow.annotator_id == annotator)).scalars())


def _again(row: Any) -> NewQuestion:
    return NewQuestion(kind="pair", purpose="repeat", images=tuple(sorted(row.shown)), round=row.round, overlap=EVERYBODY)
