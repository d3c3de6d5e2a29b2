"""Questions in the store: what is asked, of whom, and how far it has come."""

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, insert, literal_column, or_, select, true, update
from sqlalchemy.orm import aliased

from d3po.preferences.records import Answer, Assigned, NewQuestion
from d3po.preferences.store.asking import record_questions
from d3po.preferences.store.checks import answer_from_json
from d3po.preferences.store.database import Database
from d3po.preferences.store.slots import close_round, close_slots, free_slots, release_expired
from d3po.preferences.tables import AnnotatorRow, AssignmentRow, PromptRow, QuestionImageRow, QuestionRow

LEASE_SECONDS = 600.0
"""How long a question stays reserved for whom it was put to."""

IS_OPEN = QuestionRow.open_slots > literal_column("0")
"""As the index of open questions has it, so that it is used."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How many answers there are to come and where they are."""

    wanted: int
    """Of a round: answers its questions ask for. Of an annotator: the three below, added up."""
    done: int
    """Answers that stand."""
    leased: int
    """Questions in front of somebody."""
    open: int
    """Of a round: answers neither given nor leased. Of an annotator: questions that may still be put to them."""

    @property
    def left(self) -> int:
        """Answers that may still come."""
        return self.leased + self.open


class Questions:
    """Asks questions and hands them to annotators; each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._chance = random.SystemRandom()
        self._gold_due: dict[int, float] = {}
        """By annotator: how much of the next gold question has become due in this process."""

    def ask(self, questions: Sequence[NewQuestion]) -> list[int]:
        """The id of each question, recorded where it is new; all or none of them.

        A question that is there already stays as it is; only if it was never put to anybody, because a rule or a judge brought it with its
        answer, it is opened now.

        Raises:
            VoteError: a question has the wrong number of pictures, pictures that are not in the store or not of one prompt, or lacks its
                expected answer.
        """
        return self._database.write(lambda connection: record_questions(connection, questions, opened=True))

    def lease(self, annotator: int, n: int, *, lease_seconds: float = LEASE_SECONDS, gold_rate: float = 0.0) -> list[Assigned]:
        """Up to n questions for the annotator: first those in front of them already, then new ones by priority and id.

        Every 1/gold_rate-th new one is a gold question, as long as there are some they have not seen. Nobody gets a question twice, except
        one whose lease they lost before answering. The order in which the pictures are shown is drawn here and kept.
        """

        def take(connection: Connection) -> tuple[list[Assigned], float]:
            now = self._database.now()
            expires = now + round(1000 * lease_seconds)
            lock = select(AnnotatorRow.id).where(AnnotatorRow.id == annotator).with_for_update(key_share=True)
            connection.execute(lock).one()  # two tabs of one annotator take turns, and get the same leases
            standing = _renew(connection, annotator, expires)[:n]
            release_expired(connection, now=now)
            wanted = n - len(standing)
            due = self._gold_due.get(annotator, 0.0) + gold_rate * wanted
            golds = _candidates(connection, annotator, min(int(due), wanted), gold=True)
            chosen = _candidates(connection, annotator, wanted - len(golds), gold=False)
            for gold in golds:
                chosen.insert(self._chance.randint(0, len(chosen)), gold)
            return standing + self._assign(connection, annotator, chosen, now, expires), min(1.0, due - len(golds))

        assigned, self._gold_due[annotator] = self._database.write(take)
        return assigned

    def assigned(self, assignment: str, annotator: int) -> Assigned | None:
        """What was put to the annotator, answered or not; None if there is no such assignment of theirs."""
        mine = AssignmentRow.id == assignment, AssignmentRow.annotator_id == annotator
        with self._database.reading() as connection:
            row = connection.execute(_assignments().where(*mine)).one_or_none()
        return None if row is None else _assigned(row)

    def close(self, round: int) -> None:
        """Put the round's training questions to nobody any more, and end the leases on them; votes that still come are kept."""
        self._database.write(lambda connection: close_round(connection, round))

    def expected(self) -> dict[int, Answer]:
        """What each gold question's answer must be, by question id."""
        query = select(QuestionRow.id, QuestionRow.gold_answer).where(QuestionRow.purpose == "gold")
        with self._database.reading() as connection:
            return {row.id: answer_from_json(row.gold_answer) for row in connection.execute(query)}

    def progress(self, *, round: int | None = None, annotator: int | None = None) -> Progress:
        """How far a round's training questions have come, or all rounds'; with an annotator, how far their own work has, checks included."""
        within = true() if round is None else QuestionRow.round == round
        whose = QuestionRow.purpose == "train" if annotator is None else AssignmentRow.annotator_id == annotator
        by_state = (
            select(AssignmentRow.state, func.count())
            .join(QuestionRow, QuestionRow.id == AssignmentRow.question_id)
            .where(within, whose)
            .group_by(AssignmentRow.state)
        )
        with self._database.reading() as connection:
            states = dict(connection.execute(by_state).all())
            done, leased = states.get("answered", 0), states.get("leased", 0)
            if annotator is not None:
                count = select(func.count()).select_from(_still_open(annotator).where(within).subquery())
                left = connection.execute(count).scalar_one()
                return Progress(wanted=done + leased + left, done=done, leased=leased, open=left)
            sums = select(func.coalesce(func.sum(QuestionRow.overlap), 0), func.coalesce(func.sum(QuestionRow.open_slots), 0))
            wanted, left = connection.execute(sums.where(within, QuestionRow.purpose == "train")).one()
        return Progress(wanted=wanted, done=done, leased=leased, open=left)

    def _assign(self, connection: Connection, annotator: int, chosen: Sequence[Any], now: int, expires: int) -> list[Assigned]:
        """Lease the chosen questions, whose rows are locked, to the annotator."""
        if not chosen:
            return []
        ids = [row.question_id for row in chosen]
        slots, images = free_slots(connection, ids), _images(connection, ids)
        close_slots(connection, ids)
        fresh: list[dict[str, object]] = []
        assigned: list[Assigned] = []
        for row in chosen:
            assignment, shown = row.id, row.shown
            lease = {"overlap_slot": slots[row.question_id], "state": "leased", "lease_expires_at": expires}
            if assignment is None:
                assignment, shown = str(uuid.uuid4()), images[row.question_id]
                self._chance.shuffle(shown)
                whose: dict[str, object] = {"id": assignment, "question_id": row.question_id, "annotator_id": annotator}
                fresh.append(whose | lease | {"shown": shown, "created_at": now})
            else:
                connection.execute(update(AssignmentRow).where(AssignmentRow.id == assignment).values(**lease))
            assigned.append(_assigned(row, id=assignment, shown=shown, expires=expires))
        if fresh:
            connection.execute(insert(AssignmentRow), fresh)
        return assigned


def _columns() -> tuple[Any, ...]:
    return (QuestionRow.id.label("question_id"), QuestionRow.kind, QuestionRow.purpose, PromptRow.text.label("prompt"))


def _assignments() -> Select[*tuple[Any, ...]]:
    """Assignments with all that an `Assigned` holds."""
    return (
        select(*_columns(), AssignmentRow.id, AssignmentRow.shown, AssignmentRow.lease_expires_at)
        .join(QuestionRow, QuestionRow.id == AssignmentRow.question_id)
        .join(PromptRow, PromptRow.id == QuestionRow.prompt_id)
    )


def _assigned(row: Any, *, id: str | None = None, shown: Sequence[int] | None = None, expires: int | None = None) -> Assigned:
    return Assigned(
        assignment=id or row.id,
        question=row.question_id,
        kind=row.kind,
        purpose=row.purpose,
        prompt=row.prompt,
        shown=tuple(shown or row.shown),
        lease_expires_at=expires or row.lease_expires_at,
    )


def _renew(connection: Connection, annotator: int, expires: int) -> list[Assigned]:
    """What is in front of the annotator, oldest first, its leases made to last until `expires`."""
    mine = AssignmentRow.annotator_id == annotator, AssignmentRow.state == "leased"
    query = _assignments().where(*mine).order_by(AssignmentRow.created_at, QuestionRow.priority, QuestionRow.id)
    standing = [_assigned(row, expires=expires) for row in connection.execute(query)]
    if standing:
        connection.execute(update(AssignmentRow).where(*mine).values(lease_expires_at=expires))
    return standing


def _still_open(annotator: int) -> Select[*tuple[Any, ...]]:
    """Open questions that the annotator neither answered nor has in front of them, with the assignment they lost if there is one."""
    mine = aliased(AssignmentRow)
    return (
        select(*_columns(), mine.id, mine.shown)
        .join(PromptRow, PromptRow.id == QuestionRow.prompt_id)
        .outerjoin(mine, and_(mine.question_id == QuestionRow.id, mine.annotator_id == annotator))
        .where(IS_OPEN, or_(mine.id.is_(None), mine.state == "lost"))
    )


def _candidates(connection: Connection, annotator: int, limit: int, *, gold: bool) -> list[Any]:
    """Questions to put to the annotator next, locked; those that another transaction has its hands on are passed over."""
    if limit <= 0:
        return []
    purpose: ColumnElement[bool] = QuestionRow.purpose == "gold" if gold else QuestionRow.purpose != "gold"
    query = _still_open(annotator).where(purpose).order_by(QuestionRow.priority, QuestionRow.id).limit(limit)
    return list(connection.execute(query.with_for_update(skip_locked=True, key_share=True, of=QuestionRow)))


def _images(connection: Connection, questions: Sequence[int]) -> dict[int, list[int]]:
    """Each question's image ids, in the order they were asked in."""
    query = (
        select(QuestionImageRow.question_id, QuestionImageRow.image_id)
        .where(QuestionImageRow.question_id.in_(questions))
        .order_by(QuestionImageRow.question_id, QuestionImageRow.slot)
    )
    found: dict[int, list[int]] = {question: [] for question in questions}
    for question, image in connection.execute(query):
        found[question].append(image)
    return found
