"""Figures for the pages that are counted from the tables. Everything here reads, and reads little: counts by index, never a vote's body."""

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import func, select

from d3po.store import Database
from d3po.store.tables import AssignmentRow, ImageRow, PromptRow, QuestionRow, VoteRow
from d3po.web.messages import Minute, SampleGrid

MINUTE_MS = 60_000
SHOWN_PROMPTS = 6
SHOWN_IMAGES = 4


@dataclass(frozen=True, kw_only=True)
class RoundCount:
    """How far a round's questions are answered."""

    round: int
    questions: int
    wanted: int
    open: int
    answered: int


class Figures:
    """Counts on a store. Everything blocks for as long as a query takes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def rate_of(self, annotator: int, minutes: int) -> float:
        """An annotator's votes a minute, over the last so many minutes."""
        since = self._database.now() - minutes * MINUTE_MS
        query = select(func.count(VoteRow.id)).where(
            VoteRow.annotator_id == annotator, VoteRow.received_at > since, VoteRow.action == "cast"
        )
        with self._database.reading() as connection:
            return connection.execute(query).scalar_one() / minutes

    def votes_per_minute(self, minutes: int) -> list[Minute]:
        """Votes that came in, by minute, oldest first, minutes without votes included."""
        last = self._database.now() // MINUTE_MS
        first = last - minutes + 1
        query = select(VoteRow.received_at).where(VoteRow.received_at >= first * MINUTE_MS, VoteRow.action == "cast")
        counts: dict[int, int] = defaultdict(int)
        with self._database.reading() as connection:
            for at in connection.execute(query).scalars():
                counts[at // MINUTE_MS] += 1
        return [Minute(at=minute * MINUTE_MS, votes=counts[minute]) for minute in range(first, last + 1)]

    def rounds(self) -> list[RoundCount]:
        """How far each round's questions for training are answered, by round."""
        asked = (
            select(QuestionRow.round, func.count(), func.sum(QuestionRow.overlap), func.sum(QuestionRow.open_slots))
            .where(QuestionRow.round.is_not(None), QuestionRow.purpose == "train")
            .group_by(QuestionRow.round)
        )
        answered = (
            select(QuestionRow.round, func.count())
            .join(AssignmentRow, AssignmentRow.question_id == QuestionRow.id)
            .where(QuestionRow.round.is_not(None), QuestionRow.purpose == "train", AssignmentRow.state == "answered")
            .group_by(QuestionRow.round)
        )
        with self._database.reading() as connection:
            given = dict(connection.execute(answered).all())
            return [
                RoundCount(round=round, questions=questions, wanted=wanted, open=open_, answered=given.get(round, 0))
                for round, questions, wanted, open_ in sorted(connection.execute(asked))
                if round is not None
            ]

    def newest_vote(self) -> int:
        """The sequence number of the newest vote; 0 before there is one."""
        with self._database.reading() as connection:
            return connection.execute(select(func.coalesce(func.max(VoteRow.sequence), 0))).scalar_one()

    def samples(self) -> list[SampleGrid]:
        """Pictures of the held-out prompts, one grid a series, so that what training changed can be seen; none before the first evaluation."""
        prompts = self._shown_prompts()
        query = (
            select(ImageRow.series, ImageRow.prompt_id, ImageRow.id)
            .where(ImageRow.origin == "evaluation", ImageRow.prompt_id.in_(prompts), ImageRow.number < SHOWN_IMAGES)
            .order_by(ImageRow.series, ImageRow.prompt_id, ImageRow.number)
        )
        grids: dict[str, dict[int, list[int]]] = defaultdict(lambda: {prompt: [] for prompt in prompts})
        with self._database.reading() as connection:
            for series, prompt, image in connection.execute(query):
                grids[series][prompt].append(image)
        return [SampleGrid(series=series, prompts=list(prompts.values()), images=list(rows.values())) for series, rows in grids.items()]

    def _shown_prompts(self) -> dict[int, str]:
        held_out = (
            select(ImageRow.prompt_id).where(ImageRow.origin == "evaluation").distinct().order_by(ImageRow.prompt_id).limit(SHOWN_PROMPTS)
        )
        with self._database.reading() as connection:
            rows = connection.execute(select(PromptRow.id, PromptRow.text).where(PromptRow.id.in_(held_out)).order_by(PromptRow.id))
            return dict(rows.all())
