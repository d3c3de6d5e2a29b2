"""Votes in the store: cast, cast again, withdrawn, and read back. Events only: nothing that was said is ever changed."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import exc as sql
from sqlalchemy import func, select, true

from d3po.errors import VoteError
from d3po.preferences.records import Answer, Cast, NewQuestion, Purpose, Vote
from d3po.store.casting import Receipt, Retract, record_alone, record_event
from d3po.store.database import CollisionError, Database
from d3po.store.judgements import record_judgements
from d3po.store.questions import LEASE_SECONDS
from d3po.store.reading import IS_CURRENT, select_votes, stream
from d3po.store.tables import AssignmentRow, QuestionRow, VoteRow


class Votes:
    """Writes and reads votes; each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def cast(self, vote: Cast) -> Receipt:
        """Record a vote. It replaces the annotator's current vote on that question; one whose lease was lost is kept all the same.

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
        now = self._database.now()
        expires = now + round(1000 * lease_seconds)
        try:
            return self._database.write(lambda connection: [record_event(connection, event, now, expires) for event in casts], attempts=1)
        except (sql.IntegrityError, CollisionError):  # somebody else recorded one of them meanwhile: one by one, the others are unhindered
            return self._database.write(lambda connection: [record_alone(connection, event, now, expires) for event in casts])

    def record_judgements(self, annotator: int, judgements: Sequence[tuple[NewQuestion, Answer]]) -> int:
        """Record what a rule, a model or an imported file says, questions included, all or none; returns how many votes were new.

        Ids follow from the annotator's handle and the question, so that recording again adds nothing. Only people take a slot of a question
        that others are asked too; a rule's or a model's judgement never answers in their stead.

        Raises:
            VoteError: a question or an answer makes no sense.
            VoteConflictError: the annotator has judged one of these before, otherwise.
        """
        return self._database.write(lambda connection: record_judgements(connection, annotator, judgements, now=self._database.now()))

    def current(
        self, *, round: int | None = None, purpose: Purpose | None = None, after: int = 0, limit: int | None = None
    ) -> Iterator[Vote]:
        """The votes that stand, in order of their sequence numbers, read as they are needed and all as they were at one moment.

        Args:
            round: only of questions that serve this round.
            purpose: only of questions for this purpose.
            after: only with a sequence number above this. For showing and exporting; a vote may become visible after one with a higher number.
            limit: at most so many.
        """
        query = select_votes().where(IS_CURRENT, VoteRow.sequence > after, _of(round, purpose)).order_by(VoteRow.sequence).limit(limit)
        with self._database.reading() as connection:
            yield from stream(connection, query)

    def count(self, *, round: int | None = None, purpose: Purpose | None = None) -> int:
        """How many votes stand."""
        query = select(func.count()).select_from(AssignmentRow).where(AssignmentRow.state == "answered")  # each with one current vote
        if round is not None or purpose is not None:
            query = query.join(QuestionRow, QuestionRow.id == AssignmentRow.question_id).where(_of(round, purpose))
        with self._database.reading() as connection:
            return connection.execute(query).scalar_one()


def _of(round: int | None, purpose: Purpose | None) -> Any:
    within = true() if round is None else QuestionRow.round == round
    return within if purpose is None else within & (QuestionRow.purpose == purpose)


def _or_raise(result: Receipt | VoteError) -> Receipt:
    if isinstance(result, VoteError):
        raise result
    return result
