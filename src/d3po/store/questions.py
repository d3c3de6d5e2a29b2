"""Questions: asking them, leasing them to annotators, and their progress."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, func, select, true

from d3po.preferences.records import Answer, Asked, Assigned, NewQuestion
from d3po.store.checks import answer_from_json, dedup_key
from d3po.store.database import Database
from d3po.store.leasing import assign, assigned_from, candidates, lock_annotator, renew, select_assigned, select_open
from d3po.store.recording import known_questions, record_questions
from d3po.store.repeats import put_again
from d3po.store.slots import close_blind, close_round, release_expired
from d3po.store.tables import AssignmentRow, QuestionImageRow, QuestionRow

LEASE_SECONDS = 600.0
"""How long a question stays reserved for the annotator it is leased to."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How many answers are given and how many are missing, for a round or for one annotator."""

    wanted: int
    """For a round, the answers that its questions ask for; for an annotator, the sum of the three numbers below."""
    done: int
    """Current answers."""
    leased: int
    """Questions that are leased and not answered yet."""
    open: int
    """For a round, answers neither given nor leased; for an annotator, open questions that they may still be asked."""

    @property
    def left(self) -> int:
        """The answers that may still come."""
        return self.leased + self.open


@dataclass(frozen=True, kw_only=True)
class _Due:
    """The fractions of an annotator's next gold question and next repeat that are due; one is asked when its fraction reaches 1."""

    gold: float = 0.0
    repeat: float = 0.0


class Questions:
    """Records questions and leases them to annotators; each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._chance = random.SystemRandom()
        self._due: dict[int, _Due] = defaultdict(_Due)
        """What is due by annotator, counted in this process."""

    def ask(self, questions: Sequence[NewQuestion]) -> list[int]:
        """Record the questions that are new, all or none, and return the id of each.

        An existing question is not changed, with one exception: if it was recorded with the answer of a rule or a model, and nobody was asked yet, it is
        opened now.

        Raises:
            VoteError: a question is invalid, or its pictures are not in the store or not of one prompt.
        """
        return self._database.write(lambda connection: record_questions(connection, questions, opened=True))

    def asked(self, round: int) -> list[Asked]:
        """The round's training questions, in the order in which they were recorded."""
        mine = QuestionRow.round == round, QuestionRow.purpose == "train"
        query = select(QuestionRow.id, QuestionRow.prompt_id, QuestionRow.overlap, QuestionRow.probability, QuestionRow.at_random)
        pictures = select(QuestionImageRow.question_id, QuestionImageRow.image_id).join(QuestionRow)
        images: dict[int, list[int]] = defaultdict(list)
        with self._database.reading() as connection:
            for question, image in connection.execute(pictures.where(*mine).order_by(QuestionImageRow.question_id, QuestionImageRow.slot)):
                images[question].append(image)
            return [
                Asked(
                    id=row.id, prompt=row.prompt_id, images=tuple(images[row.id]), overlap=row.overlap,
                    probability=row.probability, at_random=row.at_random,
                )
                for row in connection.execute(query.where(*mine).order_by(QuestionRow.id))
            ]  # fmt: skip

    def lease(
        self, annotator: int, n: int, *, lease_seconds: float = LEASE_SECONDS, gold_rate: float = 0.0, repeat_rate: float = 0.0
    ) -> list[Assigned]:
        """Lease up to n questions to the annotator: first those already leased to them, then new ones by priority and id.

        A share `gold_rate` of the new questions are gold questions, as long as there are some that the annotator has not seen. A share `repeat_rate` of the
        others are pairs that they answered before, with the sides swapped. Apart from these, nobody is asked a question twice, unless they lost its lease
        before answering. The order in which the pictures are shown is drawn here and stored.
        """

        def take(connection: Connection) -> tuple[list[Assigned], _Due]:
            now = self._database.now()
            expires = now + round(1000 * lease_seconds)
            lock_annotator(connection, annotator)
            held = renew(connection, annotator, expires)[:n]
            wanted, due = n - len(held), self._due[annotator]
            gold_due = due.gold + gold_rate * wanted
            if wanted == 0:
                return held, replace(due, gold=gold_due)
            release_expired(connection, now=now)
            golds = candidates(connection, annotator, min(int(gold_due), wanted), gold=True)
            chosen = candidates(connection, annotator, wanted - len(golds), gold=False)
            repeat_due = due.repeat + repeat_rate * len(chosen)
            again = put_again(connection, annotator, self._chance, now, expires) if chosen and repeat_due >= 1 else []
            del chosen[len(chosen) - len(again) :]
            for gold in golds:
                chosen.insert(self._chance.randint(0, len(chosen)), gold)
            new = assign(connection, annotator, chosen, self._chance, now, expires)
            return held + new + again, _Due(gold=min(1.0, gold_due - len(golds)), repeat=min(1.0, repeat_due - len(again)))

        assigned, self._due[annotator] = self._database.write(take)
        return assigned

    def assigned(self, assignment: str, annotator: int) -> Assigned | None:
        """An assignment of the annotator, answered or not; None if they have no such assignment."""
        mine = AssignmentRow.id == assignment, AssignmentRow.annotator_id == annotator
        with self._database.reading() as connection:
            row = connection.execute(select_assigned().where(*mine)).one_or_none()
        return None if row is None else assigned_from(row)

    def close(self, round: int) -> None:
        """Close the round's training and blind questions and end the leases on them; votes that still arrive are kept."""
        self._database.write(lambda connection: close_round(connection, round))

    def close_blind(self) -> None:
        """Close all blind questions; votes that still arrive are kept."""
        self._database.write(close_blind)

    def known(self, questions: Sequence[NewQuestion]) -> list[int]:
        """The ids of those questions that were asked before, without asking them again."""
        with self._database.reading() as connection:
            return list(known_questions(connection, map(dedup_key, questions)).values())

    def awaited(self, questions: Sequence[int]) -> int:
        """The number of answers to these questions that may still arrive: open slots and leases."""
        mine = QuestionRow.id.in_(questions)
        leased = select(func.count()).select_from(AssignmentRow).join(QuestionRow).where(mine, AssignmentRow.state == "leased")
        with self._database.reading() as connection:
            open = connection.execute(select(func.coalesce(func.sum(QuestionRow.open_slots), 0)).where(mine)).scalar_one()
            return open + connection.execute(leased).scalar_one()

    def expected(self) -> dict[int, Answer]:
        """The expected answer of each gold question, by question id."""
        query = select(QuestionRow.id, QuestionRow.gold_answer).where(QuestionRow.purpose == "gold")
        with self._database.reading() as connection:
            return {row.id: answer_from_json(row.gold_answer) for row in connection.execute(query)}

    def progress(self, *, round: int | None = None, annotator: int | None = None) -> Progress:
        """The progress of the training questions of a round, or of all rounds; with an annotator, of that annotator's questions of any purpose."""
        within = true() if round is None else QuestionRow.round == round
        by_state = select(AssignmentRow.state, func.count()).group_by(AssignmentRow.state)
        if annotator is not None:
            by_state = by_state.where(AssignmentRow.annotator_id == annotator)
        if annotator is None or round is not None:
            whose = QuestionRow.purpose == "train" if annotator is None else true()
            by_state = by_state.join(QuestionRow, QuestionRow.id == AssignmentRow.question_id).where(within, whose)
        with self._database.reading() as connection:
            states = dict(connection.execute(by_state).all())
            done, leased = states.get("answered", 0), states.get("leased", 0)
            if annotator is not None:
                count = select(func.count()).select_from(select_open().where(within).subquery())
                left = connection.execute(count, {"annotator": annotator}).scalar_one()
                return Progress(wanted=done + leased + left, done=done, leased=leased, open=left)
            sums = select(func.coalesce(func.sum(QuestionRow.overlap), 0), func.coalesce(func.sum(QuestionRow.open_slots), 0))
            wanted, left = connection.execute(sums.where(within, QuestionRow.purpose == "train")).one()
        return Progress(wanted=wanted, done=done, leased=leased, open=left)
