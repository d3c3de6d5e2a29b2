"""Votes: recording, replacing, withdrawing and reading them. They are stored as events, which are never changed."""

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


class VoteStore:
    """Writes and reads votes; each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def cast(self, vote: Cast) -> Receipt:
        """Record a vote. It replaces the annotator's current vote on that question. A vote is also kept if its lease was lost.

        Raises:
            VoteError: the answer does not fit the question, or the annotator was not asked the question.
            VoteConflictError: the id was used for another vote.
            StorageError: nothing was recorded; send it again.
        """
        return _or_raise(self.cast_many([vote])[0])

    def retract(self, id: str, vote: str, annotator: int, *, lease_seconds: float = LEASE_SECONDS) -> Receipt:
        """Withdraw a vote, and lease its question to the annotator again with the pictures in the same order.

        If the vote was withdrawn or replaced before, nothing happens and the receipt says duplicate.

        Raises:
            VoteError: the annotator has cast no such vote.
            VoteConflictError: the id was used for something else.
            StorageError: nothing was recorded; send it again.
        """
        return _or_raise(self.cast_many([Retract(id=id, vote=vote, annotator=annotator)], lease_seconds=lease_seconds)[0])

    def cast_many(self, casts: Sequence[Cast | Retract], *, lease_seconds: float = LEASE_SECONDS) -> list[Receipt | VoteError]:
        """Record votes and withdrawals in one commit. Returns a receipt or an error for each; an invalid event does not affect the others.

        Raises:
            StorageError: none of them was recorded; send them again.
        """
        now = self._database.now()
        expires = now + round(1000 * lease_seconds)
        try:
            return self._database.write(lambda connection: [record_event(connection, event, now, expires) for event in casts], attempts=1)
        except (sql.IntegrityError, CollisionError):  # another transaction recorded one of them meanwhile; try each in its own savepoint
            return self._database.write(lambda connection: [record_alone(connection, event, now, expires) for event in casts])

    def record_judgements(self, annotator: int, judgements: Sequence[tuple[NewQuestion, Answer]]) -> int:
        """Record questions with the answers of a rule, a model or an imported file, all or none. Returns how many votes were new.

        Ids are derived from the annotator's handle and the question, so that recording again adds nothing. Only people's answers take a slot of the
        question; those of rules and models do not count towards the answers that people are asked for.

        Raises:
            VoteError: a question or an answer is invalid.
            VoteConflictError: the annotator has answered one of the questions differently before, or was asked it in the app.
        """
        return self._database.write(lambda connection: record_judgements(connection, annotator, judgements, now=self._database.now()))

    def current(
        self, *, round: int | None = None, purpose: Purpose | None = None, after: int = 0, limit: int | None = None
    ) -> Iterator[Vote]:
        """Yield the current votes in order of their sequence numbers, all as they were at one moment.

        Args:
            round: only votes on this round's questions.
            purpose: only votes on questions for this purpose.
            after: only votes with a larger sequence number. Use it for display and exports alone, since a vote may become visible after one with a larger
                number.
            limit: at most this many votes.
        """
        query = select_votes().where(IS_CURRENT, VoteRow.sequence > after, _of(round, purpose)).order_by(VoteRow.sequence).limit(limit)
        with self._database.reading() as connection:
            yield from stream(connection, query)

    def count(self, *, round: int | None = None, purpose: Purpose | None = None) -> int:
        """The number of current votes; only of a round's questions, or of a purpose, if these are given."""
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
