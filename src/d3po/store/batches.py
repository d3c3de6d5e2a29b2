"""Batches: which votes a round's training used. Fixed once, so that every vote reaches one training at most, and a resumed one the same."""

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select

from d3po.preferences.records import Vote
from d3po.store.database import Database
from d3po.store.reading import IS_CURRENT, select_votes, stream
from d3po.store.slots import close_round
from d3po.store.tables import FeedbackBatchRow, FeedbackBatchVoteRow, QuestionRow, VoteRow


class Batches:
    """Gives votes to trainings; each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, round: int, *, imported: bool = False) -> list[Vote]:
        """The round's batch. The first call takes every current training vote of the round and closes its questions; later ones return the same.

        With no votes there is no batch yet, and the list is empty. Of two that claim at once, one makes the batch and both get it.
        `imported` takes the votes on imported pictures, which are of no round, for this one.
        """
        of = None if imported else round
        return self._database.write(lambda connection: _claim(connection, round, of, self._database.now()))

    def votes(self, round: int) -> list[Vote] | None:
        """The round's batch as it was claimed, whatever became of its votes since; None if there is none yet."""
        with self._database.reading() as connection:
            batch = _batch(connection, round)
            return None if batch is None else _votes(connection, batch)


def _claim(connection: Connection, round: int, of: int | None, now: int) -> list[Vote]:
    batch = _batch(connection, round)
    if batch is None:
        unused = _unused(connection, of)
        if not unused:
            return []
        made = insert(FeedbackBatchRow).values(round=round, created_at=now).returning(FeedbackBatchRow.id)
        batch = connection.execute(made).scalar_one()
        connection.execute(insert(FeedbackBatchVoteRow), [{"vote_id": vote, "batch_id": batch} for vote in unused])
        if of is not None:
            close_round(connection, of)
    return _votes(connection, batch)


def _batch(connection: Connection, round: int) -> int | None:
    return connection.execute(select(FeedbackBatchRow.id).where(FeedbackBatchRow.round == round)).scalar_one_or_none()


def _unused(connection: Connection, round: int | None) -> Sequence[str]:
    """Current training votes of the round that are in no batch. By what is missing, never by "newer than the last": a vote may become
    visible after one with a higher number.
    """
    used = select(FeedbackBatchVoteRow.vote_id).where(FeedbackBatchVoteRow.vote_id == VoteRow.id).exists()
    query = (
        select(VoteRow.id)
        .join(QuestionRow, QuestionRow.id == VoteRow.question_id)
        .where(
            QuestionRow.round.is_(None) if round is None else QuestionRow.round == round, QuestionRow.purpose == "train", IS_CURRENT, ~used
        )
        .order_by(VoteRow.sequence)
    )
    return connection.execute(query).scalars().all()


def _votes(connection: Connection, batch: int) -> list[Vote]:
    mine = select(FeedbackBatchVoteRow.vote_id).where(FeedbackBatchVoteRow.batch_id == batch)
    return list(stream(connection, select_votes().where(VoteRow.id.in_(mine)).order_by(VoteRow.sequence)))
