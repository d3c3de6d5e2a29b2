"""Exchange between stores: finding pictures by their content, and reading and recording vote events unchanged, with their ids and times."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, and_, bindparam, func, insert, or_, select, update

from d3po.errors import VoteError
from d3po.preferences.records import AnnotatorKind, Answer, Kind, NewQuestion, Origin, Purpose
from d3po.store.checks import LONGEST_NAME, LONGEST_TIME, answer_from_json, check_answer, check_id, check_text
from d3po.store.database import Database, chunks
from d3po.store.reading import IS_CURRENT, next_sequence
from d3po.store.recording import record_questions
from d3po.store.slots import close_slots, free_slots
from d3po.store.tables import AnnotatorRow, AssignmentRow, FeedbackBatchRow, ImageRow, PromptRow, QuestionRow, VoteItemRow, VoteRow

PAGE = 500
"""Events read at a time."""

LATEST = 253_402_300_800_000
"""The beginning of the year 10000 in milliseconds since 1970, the end of what calendar functions support."""


@dataclass(frozen=True, kw_only=True)
class KnownPicture:
    """A picture in the store, with everything that identifies it."""

    id: int
    prompt: str
    sha256: str
    path: str
    origin: Origin
    series: str
    number: int
    round: int | None
    model: str
    policy: str
    seed: int | None


@dataclass(frozen=True, kw_only=True)
class StoredEvent:
    """A vote event with its question, its assignment and its annotator."""

    id: str
    assignment: str
    kind: Kind
    purpose: Purpose
    round: int | None
    prompt: int
    """Prompt id."""
    shown: tuple[int, ...]
    expected: Answer | None
    """The expected answer of a gold question; None for other questions."""
    annotator: str
    """The annotator's handle."""
    annotator_kind: AnnotatorKind
    answer: Answer | None
    """The answer; None if the event withdraws the one that it supersedes."""
    supersedes: str | None
    rt_ms: int | None
    client: str | None
    payload_hash: str
    received_at: int


@dataclass(kw_only=True)
class Recorded:
    """The result of recording events from elsewhere, as counts."""

    new: int = 0
    duplicates: int = 0
    left_out: Counter[str] = field(default_factory=Counter[str])
    """Events that were not recorded, by reason."""


class Foreign:
    """Reads and records events of other stores and of files; each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def events(self, *, round: int | None = None, purpose: Purpose | None = None, current: bool = True) -> Iterator[StoredEvent]:
        """Vote events in order of arrival, all as they were at one moment: the current votes, or all events if `current` is False."""
        query = _select_events().order_by(VoteRow.sequence)
        if round is not None:
            query = query.where(QuestionRow.round == round)
        if purpose is not None:
            query = query.where(QuestionRow.purpose == purpose)
        if current:
            query = query.where(IS_CURRENT)
        with self._database.reading() as connection, connection.execute(query.execution_options(yield_per=PAGE)) as result:
            for page in result.partitions(PAGE):
                values = _values(connection, [row.id for row in page])
                yield from (_event(row, values.get(row.id, {})) for row in page)

    def by_id(self, images: Sequence[int]) -> dict[int, KnownPicture]:
        """The pictures with these ids, by id."""
        return {picture.id: picture for part in chunks(images) for picture in self._pictures(ImageRow.id.in_(part))}

    def by_hash(self, hashes: Sequence[str]) -> list[KnownPicture]:
        """The pictures whose files have these hashes; those with trajectories first, then in order of their ids."""
        found = [picture for part in chunks(hashes) for picture in self._pictures(ImageRow.sha256.in_(part))]
        return sorted(found, key=lambda picture: (picture.origin != "sampled", picture.id))

    def next_numbers(self, series: str, prompts: Sequence[int]) -> dict[int, int]:
        """The number of a series' next picture, by prompt."""
        taken: dict[int, int] = {}
        with self._database.reading() as connection:
            for part in chunks(prompts):
                query = select(ImageRow.prompt_id, ImageRow.number).where(ImageRow.series == series, ImageRow.prompt_id.in_(part))
                for prompt, number in connection.execute(query):
                    taken[prompt] = max(taken.get(prompt, 0), number + 1)
        return {prompt: taken.get(prompt, 0) for prompt in prompts}

    def known(self, events: Sequence[StoredEvent], handles: Mapping[str, str]) -> dict[str, bool]:
        """For each of the events that this store has, by id, whether its content is the same here. Pictures are compared by their files.

        Args:
            events: the events, with this store's picture ids and the other store's annotator handles.
            handles: this store's handle of each annotator; an event may be recorded under either handle.
        """
        found: dict[str, bool] = {}
        for part in chunks(events):
            query = _select_events().where(VoteRow.id.in_([event.id for event in part]))
            with self._database.reading() as connection:
                rows = connection.execute(query).all()
                values = _values(connection, [row.id for row in rows])
            here = {row.id: _event(row, values.get(row.id, {})) for row in rows}
            both = [*here.values(), *(event for event in part if event.id in here)]
            files = {id: picture.sha256 for id, picture in self.by_id(sorted({id for event in both for id in event.shown})).items()}
            for event in part:
                if (said := here.get(event.id)) is not None:
                    same = _words(said, files) == _words(event, files)
                    found[event.id] = same and said.annotator in (event.annotator, handles[event.annotator])
        return found

    def record(self, annotators: dict[str, int], events: Sequence[StoredEvent]) -> Recorded:
        """Record events whose pictures are in the store. Recording them again changes nothing.

        An event is left out if the annotator was asked the same question here, if it replaces an event that is not here, or if another event has already
        replaced that one.

        Args:
            annotators: annotator ids by handle.
            events: the events, older ones first, with this store's picture ids and the payload hashes that they were first recorded with.

        Raises:
            VoteError: an event is invalid.
        """
        for event in events:
            check_event(event)
        return self._database.write(lambda connection: _record(connection, annotators, events, self._database.now()))

    def _pictures(self, which: Any) -> list[KnownPicture]:
        columns = (ImageRow.id, PromptRow.text.label("prompt"), ImageRow.sha256, ImageRow.path, ImageRow.origin, ImageRow.series)
        more = (ImageRow.number, ImageRow.round, ImageRow.model, ImageRow.policy, ImageRow.seed)
        query = select(*columns, *more).join(PromptRow, PromptRow.id == ImageRow.prompt_id).where(which).order_by(ImageRow.id)
        with self._database.reading() as connection:
            return [KnownPicture(**row) for row in connection.execute(query).mappings()]


def _select_events() -> Any:
    columns = (VoteRow.id, VoteRow.assignment_id, VoteRow.outcome, VoteRow.winner_id, VoteRow.reason, VoteRow.supersedes, VoteRow.rt_ms)
    more = (VoteRow.client, VoteRow.payload_hash, VoteRow.received_at, AssignmentRow.shown)
    asked = (QuestionRow.kind, QuestionRow.purpose, QuestionRow.round, QuestionRow.prompt_id, QuestionRow.gold_answer)
    who = (AnnotatorRow.handle, AnnotatorRow.kind.label("annotator_kind"))
    return (
        select(*columns, *more, *asked, *who)
        .join(QuestionRow, QuestionRow.id == VoteRow.question_id)
        .join(AssignmentRow, AssignmentRow.id == VoteRow.assignment_id)
        .join(AnnotatorRow, AnnotatorRow.id == VoteRow.annotator_id)
    )


def _values(connection: Connection, votes: Sequence[str]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    query = select(VoteItemRow.vote_id, VoteItemRow.image_id, VoteItemRow.value).where(VoteItemRow.vote_id.in_(votes))
    for vote, image, value in connection.execute(query.order_by(VoteItemRow.image_id)):
        found.setdefault(vote, {})[image] = value
    return found


def _event(row: Any, values: dict[int, float]) -> StoredEvent:
    answer = None if row.outcome is None else Answer(outcome=row.outcome, winner=row.winner_id, values=values, reason=row.reason)
    return StoredEvent(
        id=row.id,
        assignment=row.assignment_id,
        kind=row.kind,
        purpose=row.purpose,
        round=row.round,
        prompt=row.prompt_id,
        shown=tuple(row.shown),
        expected=None if row.gold_answer is None else answer_from_json(row.gold_answer),
        annotator=row.handle,
        annotator_kind=row.annotator_kind,
        answer=answer,
        supersedes=row.supersedes,
        rt_ms=row.rt_ms,
        client=row.client,
        payload_hash=row.payload_hash,
        received_at=row.received_at,
    )


def _words(event: StoredEvent, files: Mapping[int, str]) -> tuple[object, ...]:
    """The content of an event except its annotator's handle, with pictures identified by the hashes of their files."""
    answer = event.answer
    said = None
    if answer is not None:
        winner = None if answer.winner is None else files[answer.winner]
        said = (answer.outcome, winner, sorted((files[image], value) for image, value in answer.values.items()), answer.reason)
    shown = [files[image] for image in event.shown]
    about = (event.assignment, event.kind, event.purpose, event.annotator_kind, event.supersedes)
    return (*about, shown, said, event.rt_ms, event.client, event.received_at, event.payload_hash)


def check_event(event: StoredEvent) -> None:
    """Check that an event from elsewhere is valid and can be stored.

    Raises:
        VoteError: it is not, or cannot.
    """
    check_id(event.id)
    check_id(event.assignment)
    if event.supersedes is not None:
        check_id(event.supersedes)
    if event.answer is not None:
        check_answer(event.kind, event.shown, event.answer)
    elif event.supersedes is None:
        raise VoteError(f"event {event.id} withdraws nothing")
    if event.rt_ms is not None and not 0 <= event.rt_ms <= LONGEST_TIME:
        raise VoteError(f"event {event.id}: rt_ms is {event.rt_ms}; it lies between 0 and {LONGEST_TIME} milliseconds")
    if not 0 <= event.received_at < LATEST:
        raise VoteError(f"event {event.id}: received_at is {event.received_at}; it is in milliseconds since 1970, before the year 10000")
    check_text("a client's name", event.client, LONGEST_NAME)


@dataclass(kw_only=True)
class _Here:
    """What the store contains about some events, updated as events are added, and the database rows to be inserted for them."""

    hashes: dict[str, str]
    """Payload hash by event id."""
    assignments: dict[tuple[int, int], str]
    """Assignment id by question and annotator."""
    owners: dict[str, tuple[int, int]]
    """Question and annotator by assignment id."""
    heads: dict[tuple[int, int], str]
    """Id of the newest event by question and annotator."""
    turns: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    """Assignments to be inserted."""
    votes: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    """Votes and withdrawals to be inserted."""
    items: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    """Values of single pictures, as part of votes, to be inserted."""


def _record(connection: Connection, annotators: dict[str, int], events: Sequence[StoredEvent], now: int) -> Recorded:
    asked = [
        NewQuestion(kind=each.kind, purpose=each.purpose, images=each.shown, round=each.round, gold_answer=each.expected) for each in events
    ]
    questions = record_questions(connection, asked, opened=False)
    whose = [(question, annotators[each.annotator]) for question, each in zip(questions, events, strict=True)]
    here, recorded, touched = _look_up(connection, events, whose), Recorded(), dict[str, int | None]()
    for event, key in zip(events, whose, strict=True):
        problem = _problem(event, key, here)
        if problem is not None:
            recorded.left_out[problem] += 1
        elif event.id in here.hashes:
            recorded.duplicates += 1
        else:
            _add(event, key, here, now)
            recorded.new += 1
            touched[event.assignment] = key[0] if event.annotator_kind == "human" else None
    _insert(connection, here)
    for part in chunks(list(touched)):
        _settle(connection, {turn: touched[turn] for turn in part})
    return recorded


def _look_up(connection: Connection, events: Sequence[StoredEvent], whose: Sequence[tuple[int, int]]) -> _Here:
    here = _Here(hashes={}, assignments={}, owners={}, heads={})
    for part in chunks(list(zip(events, whose, strict=True)), 200):
        ids = {each.id for each, _ in part} | {each.supersedes for each, _ in part if each.supersedes}
        turns = {each.assignment for each, _ in part}
        mine = [
            and_(AssignmentRow.question_id == question, AssignmentRow.annotator_id == who) for question, who in {key for _, key in part}
        ]
        query = select(AssignmentRow.id, AssignmentRow.question_id, AssignmentRow.annotator_id)
        for row in connection.execute(query.where(or_(AssignmentRow.id.in_(turns), *mine))):
            here.assignments[row.question_id, row.annotator_id] = row.id
            here.owners[row.id] = (row.question_id, row.annotator_id)
        votes = select(VoteRow.id, VoteRow.payload_hash, VoteRow.question_id, VoteRow.annotator_id, VoteRow.supersedes)
        known = connection.execute(votes.where(or_(VoteRow.id.in_(ids), VoteRow.assignment_id.in_(here.owners)))).all()
        here.hashes |= {row.id: row.payload_hash for row in known}
        replaced = {row.supersedes for row in known}
        here.heads |= {(row.question_id, row.annotator_id): row.id for row in known if row.id not in replaced}
    return here


def _problem(event: StoredEvent, key: tuple[int, int], here: _Here) -> str | None:
    """The reason why an event cannot be recorded; None if it can be, or is recorded already."""
    if event.id in here.hashes:
        return None if here.hashes[event.id] == event.payload_hash else "an event of the same id says something else here"
    if here.assignments.get(key, event.assignment) != event.assignment:
        return "the annotator was asked the same here"
    if here.owners.get(event.assignment, key) != key:
        return "an assignment of the same id is of another question here"
    if event.supersedes != here.heads.get(key):
        return "it replaces an event that is not the newest here"
    return None


def _add(event: StoredEvent, key: tuple[int, int], here: _Here, now: int) -> None:
    """Add the rows of an event that can be recorded to those to be inserted."""
    question, annotator = key
    owner: dict[str, object] = {"question_id": question, "annotator_id": annotator}
    if key not in here.assignments:
        turn: dict[str, object] = {"id": event.assignment, "overlap_slot": None, "shown": list(event.shown), "state": "answered"}
        here.turns.append(owner | turn | {"created_at": min(event.received_at, now), "lease_expires_at": now})
        here.assignments[key], here.owners[event.assignment] = event.assignment, key
    answer = event.answer
    said = (None, None, None) if answer is None else (answer.outcome, answer.winner, answer.reason)
    about = {"id": event.id, "assignment_id": event.assignment, "action": "retract" if answer is None else "cast"}
    when = {"rt_ms": event.rt_ms, "client": event.client, "payload_hash": event.payload_hash, "received_at": event.received_at}
    words = dict(zip(("outcome", "winner_id", "reason"), said, strict=True))
    here.votes.append(owner | about | words | when | {"supersedes": event.supersedes})
    values = {} if answer is None else answer.values
    vote: dict[str, object] = {"vote_id": event.id, "question_id": question}
    here.items += [vote | {"image_id": image, "value": value} for image, value in values.items()]
    here.hashes[event.id], here.heads[key] = event.payload_hash, event.id


def _insert(connection: Connection, here: _Here) -> None:
    if here.turns:
        connection.execute(insert(AssignmentRow), here.turns)
    if here.votes:
        connection.execute(insert(VoteRow).values(sequence=next_sequence(connection)), here.votes)
    if here.items:
        connection.execute(insert(VoteItemRow), here.items)


def _settle(connection: Connection, touched: dict[str, int | None]) -> None:
    """Update assignments after their events were recorded: without a current answer an assignment is lost; a person's current answer takes a free slot.

    Args:
        connection: the transaction's connection.
        touched: the question of each assignment, by assignment id; None if the assignment is to take no slot.
    """
    current = set(connection.execute(select(VoteRow.assignment_id).where(VoteRow.assignment_id.in_(touched), IS_CURRENT)).scalars())
    held = select(AssignmentRow.id, AssignmentRow.question_id)
    rows = connection.execute(held.where(AssignmentRow.id.in_(touched), AssignmentRow.overlap_slot.is_not(None)))
    holding = {row.id: row.question_id for row in rows}
    withdrawn, answered = [turn for turn in touched if turn not in current], [turn for turn in touched if turn in current]
    _reopen(connection, Counter(holding[turn] for turn in withdrawn if turn in holding))
    connection.execute(update(AssignmentRow).where(AssignmentRow.id.in_(withdrawn)).values(state="lost", overlap_slot=None))
    connection.execute(update(AssignmentRow).where(AssignmentRow.id.in_(answered)).values(state="answered"))
    wanting: dict[int, list[str]] = defaultdict(list)
    for turn in answered:
        question = touched[turn]
        if question is not None and turn not in holding:
            wanting[question].append(turn)
    while wanting:  # one answer of each question at a time, since each changes the question's free slots
        _take_slots(connection, {question: turns.pop(0) for question, turns in wanting.items()})
        wanting = defaultdict(list, {question: turns for question, turns in wanting.items() if turns})


def _reopen(connection: Connection, given_up: Counter[int]) -> None:
    """Open the slots that are about to be released, if the round's questions are still asked (then open and held slots add up to the overlap)."""
    holders = (
        select(func.count()).where(AssignmentRow.question_id == QuestionRow.id, AssignmentRow.overlap_slot.is_not(None)).scalar_subquery()
    )
    trained = select(FeedbackBatchRow.id).where(FeedbackBatchRow.round == QuestionRow.round).exists()
    still_asked = QuestionRow.round.is_not(None), ~trained, QuestionRow.open_slots + holders == QuestionRow.overlap
    for question, more in given_up.items():
        statement = update(QuestionRow).where(QuestionRow.id == question, *still_asked)
        connection.execute(statement.values(open_slots=QuestionRow.open_slots + more))


def _take_slots(connection: Connection, turns: dict[int, str]) -> None:
    """Give each question's assignment in `turns` a free slot, open or never opened, if there is one."""
    query = select(QuestionRow.id, QuestionRow.overlap, QuestionRow.open_slots).where(QuestionRow.id.in_(turns)).order_by(QuestionRow.id)
    wanted = {row.id: row for row in connection.execute(query.with_for_update(key_share=True))}
    free = free_slots(connection, list(turns))
    taken = {question: free[question] for question in turns if free[question] < wanted[question].overlap}
    close_slots(connection, [question for question in taken if wanted[question].open_slots > 0])
    if taken:
        statement = update(AssignmentRow).where(AssignmentRow.id == bindparam("turn")).values(overlap_slot=bindparam("slot"))
        connection.execute(statement, [{"turn": turns[question], "slot": slot} for question, slot in taken.items()])
