"""Batches: the votes that a round's training used. A batch is fixed once, so a vote is used by one training at most, and by a resumed one again."""

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select

from d3po.preferences.records import Vote
from d3po.store.database import Database
from d3po.store.reading import IS_CURRENT, select_votes, stream
from d3po.store.slots import close_round
from d3po.store.tables import FeedbackBatchRow, FeedbackBatchVoteRow, QuestionRow, VoteRow


class Batches:
    """Assigns votes to the rounds that train on them; each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, round: int, *, imported: bool = False) -> list[Vote]:
        """The votes of the round's batch. The first call makes it of every current training vote of the round and closes the round's questions.

        Without votes no batch is made, and the list is empty. Of two processes that claim at once, one makes the batch and both get it. With `imported` the
        batch is made of the votes on imported pictures, which belong to no round.
        """
        of = None if imported else round
        return self._database.write(lambda connection: _claim(connection, round, of, self._database.now()))

    def votes(self, round: int) -> list[Vote] | None:
        """The votes of the round's batch as they were when it was made, even if they were changed since; None if there is no batch yet."""
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
    """The current training votes of the round that are in no batch.

    They are not selected as those newer than the last batch, because a vote may become visible after one with a higher sequence number.
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
