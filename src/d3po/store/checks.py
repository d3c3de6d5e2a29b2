"""Validity checks of questions and answers, and the hashes by which repeated ones are recognised."""

import hashlib
import json
from collections.abc import Sequence
from math import isfinite
from typing import Any
from uuid import UUID

from d3po.errors import VoteError
from d3po.preferences.records import OUTCOMES, Answer, Cast, Kind, NewQuestion

LONGEST_WORDS = 2000
"""The most characters of a reason."""

LONGEST_NAME = 200
"""The most characters of a client's name."""

LONGEST_TIME = 2**31 - 1
"""The longest response time in milliseconds: the largest value of an integer column, 24 days."""


def check_question(question: NewQuestion) -> None:
    """Check that a question has the number of pictures that its kind needs, each once, and an expected answer exactly if it is a gold question.

    Raises:
        VoteError: the question is invalid.
    """
    count, needed = len(question.images), {"pair": 2, "thumb": 1, "score": 1}.get(question.kind)
    if needed is not None and count != needed:
        raise VoteError(f"a {question.kind} question is about {needed} pictures, but this one has {count}")
    if needed is None and count < 2:
        raise VoteError(f"a {question.kind} question is about 2 pictures or more, but this one has {count}")
    if len(set(question.images)) < count:
        raise VoteError(f"a question names a picture twice: {list(question.images)}")
    if question.overlap < 1:
        raise VoteError(f"overlap is {question.overlap}; a question is answered once or more")
    if (question.purpose == "gold") != (question.gold_answer is not None):
        raise VoteError("a gold question has an expected answer, and no other question has")
    if question.gold_answer is not None:
        check_answer(question.kind, question.images, question.gold_answer)


def check_answer(kind: Kind, images: Sequence[int], answer: Answer) -> None:
    """Check that an answer fits the kind of question and names only the question's pictures.

    Raises:
        VoteError: the answer is invalid.
    """
    if answer.outcome not in OUTCOMES[kind]:
        raise VoteError(f"{answer.outcome!r} is no answer to a {kind} question; there are {', '.join(sorted(OUTCOMES[kind]))}")
    named = {*answer.values, *([] if answer.winner is None else [answer.winner])}
    strangers = sorted(named - set(images))
    if strangers:
        raise VoteError(f"picture {strangers[0]} is not in the question, which is about {sorted(images)}")
    if (answer.outcome == "win") != (answer.winner is not None):
        raise VoteError("a win names its winner, and no other answer does")
    if answer.reason is not None and answer.outcome != "flag":
        raise VoteError(f"{answer.outcome!r} has a reason; only a flag has one")
    check_text("a reason", answer.reason, LONGEST_WORDS)
    if not all(isfinite(value) for value in answer.values.values()):
        raise VoteError(f"{answer.outcome!r} has a value that is not a number")
    _check_values(images, answer)


def check_cast(cast: Cast) -> None:
    """Check that a vote's id, response time and client's name can be stored.

    Raises:
        VoteError: one of them cannot.
    """
    check_id(cast.id)
    if cast.rt_ms is not None and not 0 <= cast.rt_ms <= LONGEST_TIME:
        raise VoteError(f"rt_ms is {cast.rt_ms}; it lies between 0 and {LONGEST_TIME} milliseconds")
    check_text("a client's name", cast.client, LONGEST_NAME)


def check_id(id: str) -> None:
    """Check that an id is a UUID in the usual form, lower case with hyphens.

    Raises:
        VoteError: it is not.
    """
    try:
        usual = str(UUID(id))
    except ValueError:
        usual = None
    if id != usual:
        raise VoteError(f"a vote's id is a UUID in lower case with hyphens, not {id[:50]!r}")


def dedup_key(question: NewQuestion) -> str:
    """The hash by which a question is recognised: of its purpose, its kind and its pictures, in any order."""
    return hashlib.sha256(f"{question.purpose}/{question.kind}/{sorted(question.images)}".encode()).hexdigest()


def payload_hash(action: str, *parts: object) -> str:
    """A hash of everything that an event says; equal events have equal hashes."""
    return hashlib.sha256(json.dumps([action, *parts], sort_keys=True).encode()).hexdigest()


def cast_hash(cast: Cast) -> str:
    """The payload hash of a vote."""
    return payload_hash("cast", cast.assignment, cast.annotator, answer_to_json(cast.answer), cast.rt_ms, cast.client)


def answer_to_json(answer: Answer) -> dict[str, Any]:
    """The expected answer of a gold question as JSON, as it is stored."""
    values = {str(image): float(value) for image, value in sorted(answer.values.items())}
    return {"outcome": answer.outcome, "winner": answer.winner, "values": values, "reason": answer.reason}


def answer_from_json(kept: dict[str, Any]) -> Answer:
    """The expected answer of a gold question, from its JSON."""
    values = {int(image): float(value) for image, value in kept["values"].items()}
    return Answer(outcome=kept["outcome"], winner=kept["winner"], values=values, reason=kept["reason"])


def check_text(what: str, text: str | None, longest: int) -> None:
    """Check that a text can be stored; `what` names it in the message.

    Raises:
        VoteError: it is too long, or contains a null character.
    """
    if text is not None and (len(text) > longest or "\0" in text):
        raise VoteError(f"{what} has {len(text)} characters; {longest} are allowed, and no null character")


def _check_values(images: Sequence[int], answer: Answer) -> None:
    given = sorted(answer.values.values())
    match answer.outcome:
        case "rank":
            fine = len(given) >= 2 and all(place in range(1, len(images) + 1) for place in given)
            wanted = f"a whole place from 1 to {len(images)} for two pictures or more"
        case "best_worst":
            fine, wanted = given == [-1, 1], "1 for the best and -1 for the worst"
        case "marks":
            fine, wanted = set(given) <= {1}, "1 for each marked picture"
        case "score":
            fine, wanted = len(given) == 1 and 1 <= given[0] <= 5, "one score from 1 to 5"
        case "share":
            fine = len(given) == 2 and given[0] >= 0 and abs(sum(given) - 1) < 1e-6
            wanted = "the share of each of the two pictures, together 1"
        case _:
            fine, wanted = not given, "no values"
    if not fine:
        raise VoteError(f"an answer {answer.outcome!r} has {wanted}, not {dict(answer.values)}")
