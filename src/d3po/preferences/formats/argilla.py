"""Argilla's records as `dataset.records.to_json` writes them: a list of records with fields, and responses by question.

Fields are `prompt` and the pictures `image_0`, `image_1`, ... as data URIs or paths. Read are the label question `preference` (image_0, image_1,
tie, both_bad, skip) of pairs, and the ranking question `ranking` of any number of pictures; discarded responses are skips.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from d3po.errors import FormatError
from d3po.preferences.formats.base import (
    AbstractFormat,
    PictureFiles,
    Reading,
    Spill,
    Written,
    left_out,
    spill,
    suffix_of,
    write_json_array,
)
from d3po.preferences.formats.neutral import ImportedAnswer, ImportedJudgement, ImportedPicture, Item, Kind, handle_of, picture_of
from d3po.preferences.formats.parsing import Field, json_array

WORDS: dict[str, Any] = {"tie": "tie", "both_bad": "both_bad", "skip": "skip"}
TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}


class Argilla(AbstractFormat):
    """Wins, ties, both bad and skips of pairs; rankings; with annotators."""

    name: ClassVar[str] = "argilla"
    summary: ClassVar[str] = "Argilla records as JSON: fields prompt, image_0, image_1, ...; questions preference and ranking"

    def read(self, reading: Reading) -> Iterator[Item]:
        files = PictureFiles(reading.images)
        for where, value in json_array(reading.source):
            yield from _record(Field(value, where), files)

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


def _record(record: Field, files: PictureFiles) -> Iterator[Item]:
    fields = record.within("fields")
    prompt = fields.text("prompt", "")
    names = sorted((name for name in fields.values if re.fullmatch(r"image_\d+", name)), key=lambda name: int(name[6:]))
    if len(names) < 2:
        raise FormatError(f"{fields.where}: fewer than two pictures; they are called image_0, image_1, ...")
    place: dict[str, str] = {}
    for name in names:
        picture, new = _picture(fields, name, prompt, files)
        if picture in place.values():
            raise FormatError(f"{fields.place(name)}: the same picture stands twice in the record")
        place[name] = picture
        yield from new
    responses = record.within("responses").values if record.values.get("responses") else {}
    for question in ("preference", "ranking"):
        for number, value in enumerate(responses.get(question) or []):
            response = Field(value, f"{record.where}, field responses.{question}[{number}]")
            yield _judgement(response, prompt, place)


def _judgement(response: Field, prompt: str, place: dict[str, str]) -> ImportedJudgement:
    pictures, value = tuple(place.values()), response.values.get("value")
    kind: Kind = "pair" if len(pictures) == 2 else "rank"
    if response.values.get("status") == "discarded":
        answer = ImportedAnswer(outcome="skip")
    elif isinstance(value, list):
        kind, answer = "rank", ImportedAnswer(outcome="rank", values=dict(_rank(Field(rank, response.where), place) for rank in value))
    elif kind == "pair" and value in place:
        answer = ImportedAnswer(outcome="win", winner=place[str(value)])
    elif value in WORDS:
        answer = ImportedAnswer(outcome=WORDS[str(value)])
    else:
        raise response.wrong("value", f"one of {', '.join([*place, *WORDS])}, or a ranking")
    who = response.values.get("user_id")
    if who is None:
        raise response.wrong("user_id", "who answered")
    return ImportedJudgement(prompt=prompt, kind=kind, pictures=pictures, answer=answer, annotator=handle_of(who))


def _rank(rank: Field, place: dict[str, str]) -> tuple[str, float]:
    name, number = rank.text("value"), rank.number("rank")
    if name not in place:
        raise rank.wrong("value", f"one of {', '.join(place)}")
    if number not in range(1, len(place) + 1):
        raise rank.wrong("rank", f"a place from 1 to {len(place)}")
    return place[name], number


def _picture(fields: Field, name: str, prompt: str, files: PictureFiles) -> tuple[str, list[ImportedPicture]]:
    value = fields.values[name]
    if not (isinstance(value, str) and value.startswith("data:")):
        return files.read(value, prompt, fields.place(name))
    head, comma, body = value.partition(",")
    try:
        if not comma or not head.endswith(";base64"):
            raise FormatError(f"{fields.place(name)}: expected data:image/...;base64,...")
        picture = picture_of(base64.b64decode(body, validate=True), prompt)
    except binascii.Error as error:
        raise FormatError(f"{fields.place(name)}: not base64: {error}") from error
    return picture.id, [picture]


def _data_uri(content: bytes) -> str:
    return f"data:{TYPES[suffix_of(content)]};base64,{base64.b64encode(content).decode()}"
