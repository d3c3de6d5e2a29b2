"""Recording questions, within the caller's transaction."""

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, bindparam, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from d3po.errors import VoteError
from d3po.preferences.records import NewQuestion
from d3po.store.checks import answer_to_json, check_question, dedup_key
from d3po.store.database import chunks
from d3po.store.tables import AssignmentRow, FeedbackBatchRow, ImageRow, QuestionImageRow, QuestionRow


def record_questions(connection: Connection, questions: Sequence[NewQuestion], *, opened: bool) -> list[int]:
    """Record the questions that are new, and return the id of each. With `opened`, those never asked before are opened to annotators.

    Raises:
        VoteError: a question is invalid, or its pictures are not in the store or not of one prompt.
    """
    for question in questions:
        check_question(question)
    by_key = {dedup_key(question): question for question in questions}
    known = known_questions(connection, by_key)
    new = {key: question for key, question in by_key.items() if key not in known}
    inserted = _insert(connection, new, opened=opened)
    if opened:
        _open(connection, {id: by_key[key] for key, id in known.items()})
    known |= inserted | known_questions(connection, new.keys() - inserted.keys())
    return [known[dedup_key(question)] for question in questions]


def known_questions(connection: Connection, keys: Iterable[str]) -> dict[str, int]:
    """The ids of the recorded questions by deduplication key."""
    found: dict[str, int] = {}
    for part in chunks(list(keys)):
        rows = connection.execute(select(QuestionRow.dedup_key, QuestionRow.id).where(QuestionRow.dedup_key.in_(part)))
        found |= {row.dedup_key: row.id for row in rows}
    return found


def _insert(connection: Connection, new: dict[str, NewQuestion], *, opened: bool) -> dict[str, int]:
    """Insert questions and return the ids of those inserted, by key; another transaction may have inserted some of them first."""
    if not new:
        return {}
    prompts = _prompts(connection, new.values())
    rows = [
        {
            "kind": question.kind,
            "purpose": question.purpose,
            "prompt_id": prompts[question.images[0]],
            "round": question.round,
            "dedup_key": key,
            "overlap": question.overlap,
            "open_slots": question.overlap if opened else 0,
            "priority": question.priority,
            "gold_answer": None if question.gold_answer is None else answer_to_json(question.gold_answer),
            "probability": question.probability,
            "at_random": question.at_random,
        }
        for key, question in new.items()
    ]
    statement = (postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert)(QuestionRow)
    made = connection.execute(statement.on_conflict_do_nothing().returning(QuestionRow.dedup_key, QuestionRow.id), rows)
    inserted = {row.dedup_key: row.id for row in made}
    images = [
        {"question_id": id, "slot": slot, "image_id": image} for key, id in inserted.items() for slot, image in enumerate(new[key].images)
    ]
    if images:
        connection.execute(insert(QuestionImageRow), images)
    return inserted


def _prompts(connection: Connection, questions: Iterable[NewQuestion]) -> dict[int, int]:
    """The prompt of each picture that the questions name.

    Raises:
        VoteError: a picture is not in the store, or a question's pictures are of several prompts.
    """
    questions = list(questions)
    prompts: dict[int, int] = {}
    for part in chunks(sorted({image for question in questions for image in question.images})):
        rows = connection.execute(select(ImageRow.id, ImageRow.prompt_id).where(ImageRow.id.in_(part)))
        prompts |= {row.id: row.prompt_id for row in rows}
    for question in questions:
        strangers = [image for image in question.images if image not in prompts]
        if strangers:
            raise VoteError(f"picture {strangers[0]} is not in the store; record pictures before asking about them")
        if len({prompts[image] for image in question.images}) > 1:
            raise VoteError(f"pictures {list(question.images)} are not of one prompt; a question compares pictures of one prompt")
    return prompts


def _open(connection: Connection, questions: dict[int, NewQuestion]) -> None:
    """Open those of the existing questions that nobody was ever asked and whose round was not trained yet."""
    held = select(AssignmentRow.id).where(AssignmentRow.question_id == QuestionRow.id, AssignmentRow.overlap_slot.is_not(None)).exists()
    trained = select(FeedbackBatchRow.id).where(FeedbackBatchRow.round == QuestionRow.round).exists()
    never_asked = QuestionRow.open_slots == 0, ~held, or_(~trained, QuestionRow.purpose != "train")
    dormant: list[int] = []
    for part in chunks(list(questions)):
        query = select(QuestionRow.id).where(QuestionRow.id.in_(part), *never_asked).with_for_update(key_share=True)
        dormant += connection.execute(query).scalars()
    if dormant:
        connection.execute(
            update(QuestionRow)
            .where(QuestionRow.id == bindparam("question"))
            .values(overlap=bindparam("wanted"), open_slots=bindparam("wanted"), priority=bindparam("urgency")),
            [{"question": id, "wanted": questions[id].overlap, "urgency": questions[id].priority} for id in dormant],
        )
