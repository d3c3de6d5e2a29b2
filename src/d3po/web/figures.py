"""Counts figures for the pages from the database tables, with cheap queries that only read."""

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
    """How many of a round's questions are answered."""

    round: int
    questions: int
    wanted: int
    """Answers wanted: the overlap of every question, summed."""
    open: int
    """Answers that are neither given nor leased."""
    answered: int
    """Answers given."""


class Figures:
    """Counts figures in a store. Every method blocks while its query runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def rate_of(self, annotator: int, minutes: int) -> float:
        """The votes per minute of an annotator, over the last `minutes` minutes."""
        since = self._database.now() - minutes * MINUTE_MS
        query = select(func.count(VoteRow.id)).where(
            VoteRow.annotator_id == annotator, VoteRow.received_at > since, VoteRow.action == "cast"
        )
        with self._database.reading() as connection:
            return connection.execute(query).scalar_one() / minutes

    def votes_per_minute(self, minutes: int) -> list[Minute]:
        """The number of votes in each of the last `minutes` minutes, oldest first, including minutes without votes."""
        last = self._database.now() // MINUTE_MS
        first = last - minutes + 1
        query = select(VoteRow.received_at).where(VoteRow.received_at >= first * MINUTE_MS, VoteRow.action == "cast")
        counts: dict[int, int] = defaultdict(int)
        with self._database.reading() as connection:
            for at in connection.execute(query).scalars():
                counts[at // MINUTE_MS] += 1
        return [Minute(at=minute * MINUTE_MS, votes=counts[minute]) for minute in range(first, last + 1)]

    def rounds(self) -> list[RoundCount]:
        """How many of each round's training questions are answered, in order of rounds."""
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
        """Pictures of the first held-out prompts, as one grid for each series. Empty before the first evaluation."""
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
