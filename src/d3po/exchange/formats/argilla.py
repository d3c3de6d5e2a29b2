"""Argilla's records as `dataset.records.to_json` writes them: a list of records with fields, and responses by question.

Fields are `prompt` (or `text`, `caption`, `instruction`) and the pictures `image_0`, `image_1`, ... as data URIs or paths. Two questions are read: the label
question `preference` on pairs (image_0, image_1, tie, both_bad, skip), and the ranking question `ranking` on any number of pictures. A ranking is a list of
names in order, as Argilla 2 writes it, or of names with their ranks. Discarded responses are skips.
"""

import base64
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from d3po.errors import FormatError
from d3po.exchange.formats.base import (
    AbstractFormat,
    NamedPictures,
    Reading,
    Record,
    Spill,
    Written,
    left_out,
    note_missing_prompt,
    spill,
    suffix_of,
    write_json_array,
)
from d3po.exchange.formats.neutral import ImportedAnswer, ImportedJudgement, ImportedPicture, Item, Kind, handle_of
from d3po.exchange.formats.parsing import Element, Field, json_array

WORDS: dict[str, Any] = {"tie": "tie", "both_bad": "both_bad", "skip": "skip"}
QUESTIONS = ("preference", "ranking")
TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}


class Argilla(AbstractFormat):
    """Holds wins, ties, both bad and skips of pairs, and rankings, with annotators."""

    name: ClassVar[str] = "argilla"
    summary: ClassVar[str] = "Argilla records as JSON: fields prompt, image_0, image_1, ...; questions preference and ranking"
    has_questions: ClassVar[bool] = True
    expects: ClassVar[str] = "responses to the questions preference and ranking (--question NAME reads another)"

    def records(self, reading: Reading, pictures: NamedPictures) -> Iterator[Record]:
        for element in json_array(reading.source):
            yield partial(_record, element, pictures, reading)

    def write(self, items: Iterable[Item], target: Path) -> Written:
        written = Written()
        records: dict[tuple[str, tuple[str, ...]], dict[str, list[dict[str, Any]]]] = {}
        with spill() as pictures:
            for item in items:
                if isinstance(item, ImportedPicture):
                    pictures.keep(item)
                    written.pictures += 1
                    continue
                response = _response(item)
                if response is None:
                    left_out(written, item)
                    continue
                question, value = response
                said = records.setdefault((item.prompt, item.pictures), {"preference": [], "ranking": []})
                said[question].append({"value": value, "user_id": item.annotator})
                written.judgements += 1
            write_json_array(target, (_to_record(n, *key, said, pictures) for n, (key, said) in enumerate(records.items(), 1)))
        return written


def _to_record(
    number: int, prompt: str, names: tuple[str, ...], said: dict[str, list[dict[str, Any]]], pictures: Spill
) -> dict[str, object]:
    fields = {"prompt": prompt} | {f"image_{place}": _data_uri(pictures.content(prompt, name)) for place, name in enumerate(names)}
    responses = {question: answers for question, answers in said.items() if answers}
    return {"id": str(number), "fields": fields, "metadata": {}, "suggestions": {}, "responses": responses, "vectors": {}}


def _response(item: ImportedJudgement) -> tuple[str, Any] | None:
    answer, place = item.answer, {picture: f"image_{number}" for number, picture in enumerate(item.pictures)}
    if answer is None:
        return None
    if answer.outcome == "rank":
        return "ranking", [{"value": place[picture], "rank": int(rank)} for picture, rank in answer.values.items()]
    if item.kind != "pair":
        return None
    if answer.outcome == "win":
        return "preference", place[answer.winner or ""]
    return ("preference", answer.outcome) if answer.outcome in WORDS else None


def _record(element: Element, pictures: NamedPictures, reading: Reading) -> Iterator[ImportedJudgement]:
    record = element.field()
    fields = record.within("fields")
    prompt = fields.prompt()
    note_missing_prompt(fields, reading)
    names = sorted((name for name in fields.values if re.fullmatch(r"image_\d{1,4}", name)), key=lambda name: int(name[6:]))
    if len(names) < 2:
        found = ", ".join(fields.values)[:100]
        raise FormatError(f"{fields.where}: fewer than two pictures; they are called image_0, image_1, ..., but the fields are {found}")
    place = {name: pictures.read(fields.values[name], prompt, fields.place(name)) for name in names}
    responses = record.within("responses").values if record.values.get("responses") else {}
    read = QUESTIONS if reading.question is None else (reading.question,)
    for question, answers in responses.items():
        if not isinstance(answers, list):
            raise FormatError(f"{record.where}, field responses.{question}: expected a list of responses")
        if question not in read:
            reading.passed_over[f"responses to the question {question[:60]!r} are not read"] += len(answers)
            continue
        for number, value in enumerate(answers):
            response = Field(value, f"{record.where}, field responses.{question}[{number}]")
            judgement = _judgement(response, prompt, place, reading)
            if judgement is not None:
                yield judgement


def _judgement(response: Field, prompt: str, place: dict[str, str], reading: Reading) -> ImportedJudgement | None:
    pictures, value = tuple(place.values()), response.values.get("value")
    kind: Kind = "pair" if len(pictures) == 2 else "rank"
    status = response.values.get("status")
    if status == "discarded":
        answer = ImportedAnswer(outcome="skip")
    elif status == "draft" or value is None:
        reading.passed_over["responses are drafts, or say nothing"] += 1
        return None
    elif isinstance(value, list):
        kind, answer = "rank", ImportedAnswer(outcome="rank", values=_ranks(response, place))
    elif kind == "pair" and isinstance(value, str) and value in place:
        answer = ImportedAnswer(outcome="win", winner=place[value])
    elif isinstance(value, str) and value in WORDS:
        answer = ImportedAnswer(outcome=WORDS[value])
    else:
        raise response.wrong("value", f"one of {', '.join([*place, *WORDS])}, or a ranking")
    who = response.values.get("user_id")
    if who is None:
        raise response.wrong("user_id", "who answered")
    return ImportedJudgement(prompt=prompt, kind=kind, pictures=pictures, answer=answer, annotator=handle_of(who), where=response.where)


def _ranks(response: Field, place: dict[str, str]) -> dict[str, float]:
    """The rank of each picture in a ranking, by picture id."""
    said = response.items("value")
    if all(isinstance(each, str) for each in said):
        named = [(each, float(rank)) for rank, each in enumerate(said, 1)]
    else:
        named = [_rank(Field(each, f"{response.where}.value[{number}]"), len(place)) for number, each in enumerate(said)]
    names = [name for name, _ in named]
    if not set(names) <= place.keys() or len(set(names)) < len(names):
        raise response.wrong("value", f"a ranking of {', '.join(place)}, each once")
    return {place[name]: rank for name, rank in named}


def _rank(rank: Field, count: int) -> tuple[str, float]:
    number = rank.number("rank")
    if number not in range(1, count + 1):
        raise rank.wrong("rank", f"a place from 1 to {count}")
    return rank.text("value"), number


def _data_uri(content: bytes) -> str:
    return f"data:{TYPES[suffix_of(content)]};base64,{base64.b64encode(content).decode()}"
