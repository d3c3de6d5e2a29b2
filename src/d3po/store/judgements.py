"""Recording answers of rules, models and imported files in bulk, within the caller's transaction."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from d3po.errors import VoteConflictError
from d3po.preferences.records import Answer, NewQuestion
from d3po.store.checks import answer_to_json, check_answer, check_question, dedup_key, payload_hash
from d3po.store.database import chunks
from d3po.store.reading import next_sequence
from d3po.store.recording import record_questions
from d3po.store.slots import close_slots, free_slots
from d3po.store.tables import AnnotatorRow, AssignmentRow, QuestionRow, VoteItemRow, VoteRow

NAMESPACE = uuid.UUID("8b1f2b0e-6b0c-5d3f-9f0a-3d5a0d3b70aa")
"""The namespace of the UUIDs that are derived from an annotator's handle and a question."""


@dataclass(frozen=True, kw_only=True)
class _RecordedJudgement:
    id: str
    assignment: str
    payload_hash: str
    shown: tuple[int, ...]
    answer: Answer
    question: int


def record_judgements(connection: Connection, annotator: int, judgements: Sequence[tuple[NewQuestion, Answer]], *, now: int) -> int:
    """Record questions with their answers; returns how many votes were new. See `VoteStore.record_judgements`."""
    handle, kind = connection.execute(select(AnnotatorRow.handle, AnnotatorRow.kind).where(AnnotatorRow.id == annotator)).one()
    for question, answer in judgements:
        check_question(question)
        check_answer(question.kind, question.images, answer)
    ids = record_questions(connection, [question for question, _ in judgements], opened=False)
    named = [_named(handle, question, answer, id) for (question, answer), id in zip(judgements, ids, strict=True)]
    count = 0
    for part in chunks(named):
        new = _new(connection, part)
        _refuse_second_answers(connection, annotator, handle, new)
        _insert(connection, annotator, new, now=now, takes_slots=kind == "human")
        count += len(new)
    return count


def _named(handle: str, question: NewQuestion, answer: Answer, id: int) -> _RecordedJudgement:
    key = dedup_key(question)
    return _RecordedJudgement(
        id=str(uuid.uuid5(NAMESPACE, f"vote/{handle}/{key}")),
        assignment=str(uuid.uuid5(NAMESPACE, f"assignment/{handle}/{key}")),
        payload_hash=payload_hash("judgement", handle, key, answer_to_json(answer)),
        shown=question.images,
        answer=answer,
        question=id,
    )


def _new(connection: Connection, judgements: Sequence[_RecordedJudgement]) -> list[_RecordedJudgement]:
    """The judgements that are not recorded yet, each once.

    Raises:
        VoteConflictError: the annotator has answered one of the questions differently before.
    """
    query = select(VoteRow.id, VoteRow.payload_hash).where(VoteRow.id.in_([each.id for each in judgements]))
    known = {row.id: row.payload_hash for row in connection.execute(query)}
    new: list[_RecordedJudgement] = []
    for each in judgements:
        if each.id not in known:
            known[each.id] = each.payload_hash
            new.append(each)
        elif known[each.id] != each.payload_hash:
            raise VoteConflictError(
                f"the same annotator answered differently about pictures {sorted(each.shown)} before; nothing was recorded"
            )
    return new


def _refuse_second_answers(connection: Connection, annotator: int, handle: str, judgements: Sequence[_RecordedJudgement]) -> None:
    mine = AssignmentRow.annotator_id == annotator, AssignmentRow.question_id.in_([each.question for each in judgements])
    asked = connection.execute(select(AssignmentRow.question_id).where(*mine).limit(1)).scalar_one_or_none()
    if asked is not None:
        raise VoteConflictError(f"question {asked} was put to {handle} in the app; record judgements under another handle")


def _insert(connection: Connection, annotator: int, judgements: Sequence[_RecordedJudgement], *, now: int, takes_slots: bool) -> None:
    if not judgements:
        return
    slots = _take_slots(connection, [each.question for each in judgements]) if takes_slots else {}
    whose = [{"question_id": each.question, "annotator_id": annotator} for each in judgements]
    connection.execute(
        insert(AssignmentRow),
        [
            owner
            | {"id": each.assignment, "overlap_slot": slots.get(each.question), "shown": list(each.shown), "state": "answered"}
            | {"created_at": now, "lease_expires_at": now}
            for owner, each in zip(whose, judgements, strict=True)
        ],
    )
    connection.execute(
        insert(VoteRow).values(sequence=next_sequence(connection)),
        [
            owner
            | {"id": each.id, "assignment_id": each.assignment, "action": "cast", "payload_hash": each.payload_hash, "received_at": now}
            | {"outcome": each.answer.outcome, "winner_id": each.answer.winner, "reason": each.answer.reason}
            for owner, each in zip(whose, judgements, strict=True)
        ],
    )
    items = [
        {"vote_id": each.id, "question_id": each.question, "image_id": image, "value": value}
        for each in judgements
        for image, value in each.answer.values.items()
    ]
    if items:
        connection.execute(insert(VoteItemRow), items)


def _take_slots(connection: Connection, questions: Sequence[int]) -> dict[int, int]:
    """Take a slot of each question that has a free one, open or never opened. Returns the slots by question id."""
    query = select(QuestionRow.id, QuestionRow.overlap, QuestionRow.open_slots).where(QuestionRow.id.in_(questions))
    wanted = {row.id: row for row in connection.execute(query.order_by(QuestionRow.id).with_for_update(key_share=True))}
    slots = {question: slot for question, slot in free_slots(connection, questions).items() if slot < wanted[question].overlap}
    close_slots(connection, [question for question in slots if wanted[question].open_slots > 0])
    return slots
