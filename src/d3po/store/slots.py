"""The slots of questions: each answer that a question asks for is a slot, which is open or held by an assignment.

For every question that is asked, open_slots + the number of assignments that hold a slot = overlap. The functions here keep this equation, and the
tables' constraints bound both sides. They work within the caller's transaction and lock what they change.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import count

from sqlalchemy import ColumnElement, Connection, and_, bindparam, literal_column, or_, select, update

from d3po.store.tables import AssignmentRow, FeedbackBatchRow, QuestionRow

MOST_RELEASED = 200
"""The most expired leases that are released in one transaction; the next transaction continues."""

IS_LEASED = AssignmentRow.state == literal_column("'leased'")
"""Written exactly as in the index of leases, so that the index is used."""


_HELD = select(AssignmentRow.question_id, AssignmentRow.overlap_slot).where(
    AssignmentRow.question_id.in_(bindparam("questions", expanding=True)), AssignmentRow.overlap_slot.is_not(None)
)

_CLOSE = update(QuestionRow).where(QuestionRow.id.in_(bindparam("questions", expanding=True))).values(open_slots=QuestionRow.open_slots - 1)

_TRAINED = select(FeedbackBatchRow.id).where(FeedbackBatchRow.round == QuestionRow.round).exists()

_REOPENS = and_(QuestionRow.purpose != "repeat", or_(~_TRAINED, QuestionRow.purpose == "gold"))
"""Whether the question is asked again when a lease is lost: not if its round was trained, and not if it is a repeat, which is for one person."""

_EXPIRED = (
    select(AssignmentRow.id, AssignmentRow.question_id, _REOPENS.label("reopens"))
    .join(QuestionRow, QuestionRow.id == AssignmentRow.question_id)
    .where(IS_LEASED, AssignmentRow.lease_expires_at < bindparam("now"))
    .order_by(AssignmentRow.lease_expires_at)
    .limit(MOST_RELEASED)
    .with_for_update(skip_locked=True, key_share=True, of=[AssignmentRow, QuestionRow])
)


def free_slots(connection: Connection, questions: Sequence[int]) -> dict[int, int]:
    """The smallest slot that no assignment holds, by question id."""
    held: dict[int, set[int]] = defaultdict(set)
    for question, slot in connection.execute(_HELD, {"questions": questions}):
        held[question].add(slot or 0)
    return {question: next(slot for slot in count() if slot not in held[question]) for question in questions}


def take_slot(connection: Connection, question: int) -> int | None:
    """Take one of the question's open slots; None if there is none."""
    query = select(QuestionRow.open_slots).where(QuestionRow.id == question).with_for_update(key_share=True)
    if connection.execute(query).scalar_one() == 0:
        return None
    slot = free_slots(connection, [question])[question]
    close_slots(connection, [question])
    return slot


def close_slots(connection: Connection, questions: Sequence[int]) -> None:
    """Reduce the number of open slots of each question by one; the questions must be locked."""
    connection.execute(_CLOSE, {"questions": questions})


def release_expired(connection: Connection, *, now: int) -> None:
    """Release expired leases, so that other annotators are asked; questions of a trained round stay closed.

    Leases that another transaction has locked are skipped.
    """
    found = connection.execute(_EXPIRED, {"now": now}).all()
    if found:
        lost = update(AssignmentRow).where(AssignmentRow.id.in_([row.id for row in found]))
        connection.execute(lost.values(state="lost", overlap_slot=None))
    reopened = Counter(row.question_id for row in found if row.reopens)
    if reopened:
        connection.execute(
            update(QuestionRow)
            .where(QuestionRow.id == bindparam("question"))
            .values(open_slots=QuestionRow.open_slots + bindparam("more")),
            [{"question": question, "more": more} for question, more in reopened.items()],
        )


def close_round(connection: Connection, round: int) -> None:
    """Close the round's training and blind questions and end the leases on them; votes that still arrive are kept."""
    _close(connection, QuestionRow.round == round, QuestionRow.purpose.in_(("train", "blind")))


def close_blind(connection: Connection) -> None:
    """Close all blind questions and end the leases on them; votes that still arrive are kept."""
    _close(connection, QuestionRow.purpose == "blind")


def _close(connection: Connection, *which: ColumnElement[bool]) -> None:
    mine = select(QuestionRow.id).where(*which)
    connection.execute(update(QuestionRow).where(QuestionRow.id.in_(mine), QuestionRow.open_slots > 0).values(open_slots=0))
    connection.execute(
        update(AssignmentRow)
        .where(AssignmentRow.state == "leased", AssignmentRow.question_id.in_(mine))
        .values(state="lost", overlap_slot=None)
    )
