"""Reading votes as records, and which of them are current, within the caller's transaction."""

from collections import defaultdict
from collections.abc import Iterator
from collections.abc import Sequence as Ordered
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Sequence, and_, func, select
from sqlalchemy.orm import aliased

from d3po.preferences.records import Answer, Vote
from d3po.store.database import chunks
from d3po.store.tables import AssignmentRow, QuestionRow, VoteItemRow, VoteRow

PAGE = 500
"""Votes read at a time."""

_later = aliased(VoteRow)

IS_CURRENT = and_(VoteRow.action == "cast", ~select(_later.id).where(_later.supersedes == VoteRow.id).exists())
"""Whether a vote event is a vote that was neither replaced nor withdrawn."""


def select_votes() -> Select[*tuple[Any, ...]]:
    """Select votes, with all columns of a `Vote` except the values of single pictures."""
    return (
        select(
            VoteRow.id,
            VoteRow.sequence,
            VoteRow.question_id,
            VoteRow.annotator_id,
            VoteRow.outcome,
            VoteRow.winner_id,
            VoteRow.reason,
            VoteRow.rt_ms,
            VoteRow.received_at,
            QuestionRow.kind,
            QuestionRow.purpose,
            QuestionRow.round,
            QuestionRow.prompt_id,
            AssignmentRow.shown,
        )
        .join(QuestionRow, QuestionRow.id == VoteRow.question_id)
        .join(AssignmentRow, AssignmentRow.id == VoteRow.assignment_id)
    )


def stream(connection: Connection, query: Select[*tuple[Any, ...]]) -> Iterator[Vote]:
    """Run a query made from `select_votes` and yield its votes, read a page at a time, all as they were when the query began."""
    with connection.execute(query.execution_options(yield_per=PAGE)) as result:
        for page in result.partitions(PAGE):
            yield from _votes(connection, page)


def _votes(connection: Connection, rows: Ordered[Any]) -> Iterator[Vote]:
    values = _values(connection, [row.id for row in rows if row.outcome in ("rank", "best_worst", "marks", "score", "share")])
    for row in rows:
        yield Vote(
            id=row.id,
            sequence=row.sequence,
            question=row.question_id,
            kind=row.kind,
            purpose=row.purpose,
            round=row.round,
            prompt=row.prompt_id,
            images=tuple(sorted(row.shown)),
            shown=tuple(row.shown),
            annotator=row.annotator_id,
            answer=Answer(outcome=row.outcome, winner=row.winner_id, values=values.get(row.id, {}), reason=row.reason),
            rt_ms=row.rt_ms,
            received_at=row.received_at,
        )


def _values(connection: Connection, votes: Ordered[str]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for part in chunks(votes):
        query = select(VoteItemRow.vote_id, VoteItemRow.image_id, VoteItemRow.value).where(VoteItemRow.vote_id.in_(part))
        for vote, image, value in connection.execute(query.order_by(VoteItemRow.vote_id, VoteItemRow.image_id)):
            found[vote][image] = value
    return found


def next_sequence(connection: Connection) -> ColumnElement[int]:
    """The next event's sequence number, as an expression to insert.

    On SQLite, which has one writer at a time, it is the largest number plus 1. PostgreSQL draws from a sequence, so that no writer waits and numbers may be
    skipped.
    """
    if connection.dialect.name == "postgresql":
        return Sequence("vote_sequence").next_value()
    other = VoteRow.__table__.alias()
    return select(func.coalesce(func.max(other.c.sequence), 0) + 1).scalar_subquery()
