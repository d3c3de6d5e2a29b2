"""Label Studio's JSON: tasks with their data and their annotations, for projects that compare two pictures.

A labeling configuration for it is in docs/formats.md. Results of the types `pairwise` (left, right) and `choices` (left, right, tie, both_bad, skip) are read;
a cancelled annotation is a skip. If a task contains the pictures' hashes, pictures are recognised by them, so that d3po's exports that were annotated in
Label Studio are matched to the original pictures.
"""

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from d3po.errors import FormatError
from d3po.exchange.formats.base import (
    AbstractFormat,
    NamedPictures,
    PictureFolder,
    Reading,
    Record,
    Written,
    left_out,
    note_missing_prompt,
    write_json_array,
)
from d3po.exchange.formats.neutral import ImportedAnswer, ImportedJudgement, ImportedPicture, Item, handle_of
from d3po.exchange.formats.parsing import Element, Field, json_array

SIDES = (("left", "right"), ("image_a", "image_b"), ("image1", "image2"), ("image_1", "image_2"), ("image_0", "image_1"), ("img1", "img2"))
"""Names that tasks give to their two pictures; the first pair of names that a task has is used."""

OUTCOMES: dict[str, Any] = {"tie": "tie", "both_bad": "both_bad", "skip": "skip"}
HASH = re.compile(r"[0-9a-f]{64}")


class LabelStudio(AbstractFormat):
    """Holds answers to pairs (wins, ties, both bad, skips), with annotators."""

    name: ClassVar[str] = "label_studio"
    summary: ClassVar[str] = "Label Studio JSON: tasks with left, right, prompt and pairwise or choices results"
    expects: ClassVar[str] = "annotations with a result of type pairwise (left, right) or choices (left, right, tie, both_bad, skip)"

    def records(self, reading: Reading, pictures: NamedPictures) -> Iterator[Record]:
        for element in json_array(reading.source):
            yield partial(_task, element, pictures, reading)

    def write(self, items: Iterable[Item], target: Path) -> Written:
        written, pictures = Written(), PictureFolder(target)
        hashes: dict[tuple[str, str], str] = {}
        tasks: dict[tuple[str, tuple[str, ...]], dict[str, Any]] = {}
        for item in items:
            if isinstance(item, ImportedPicture):
                pictures.keep(item)
                hashes[item.prompt, item.id] = item.sha256
                written.pictures += 1
                continue
            result = _result(item)
            if result is None:
                left_out(written, item)
                continue
            written.judgements += 1
            task = tasks.setdefault((item.prompt, item.pictures), _new_task(len(tasks) + 1, item, pictures, hashes))
            annotation = {"id": written.judgements, "annotator": item.annotator, "was_cancelled": not result, "ground_truth": False}
            task["annotations"].append(annotation | {"result": result})
        write_json_array(target, tasks.values())
        return written


def _new_task(number: int, item: ImportedJudgement, pictures: PictureFolder, hashes: dict[tuple[str, str], str]) -> dict[str, Any]:
    data: dict[str, Any] = {"prompt": item.prompt}
    for side, picture in zip(("left", "right"), item.pictures, strict=True):
        data |= {side: pictures.find(item.prompt, picture), f"{side}_sha256": hashes[item.prompt, picture]}
    return {"id": number, "data": data, "annotations": []}


def _result(item: ImportedJudgement) -> list[dict[str, Any]] | None:
    """The results of an annotation: an empty list for a skip, and None if the format cannot hold the answer."""
    if item.answer is None or item.kind != "pair":
        return None
    if item.answer.outcome == "skip":
        return []
    if item.answer.outcome == "win":
        side = "left" if item.answer.winner == item.pictures[0] else "right"
        return [{"from_name": "preference", "to_name": "left,right", "type": "pairwise", "value": {"selected": side}}]
    if item.answer.outcome in OUTCOMES:
        return [{"from_name": "other", "to_name": "left", "type": "choices", "value": {"choices": [item.answer.outcome]}}]
    return None


def _task(element: Element, pictures: NamedPictures, reading: Reading) -> Iterator[ImportedJudgement]:
    task = element.field()
    data = task.within("data")
    sides = next((sides for sides in SIDES if all(side in data.values for side in sides)), None)
    if sides is None:
        names = f"left and right, or {SIDES[1][0]} and {SIDES[1][1]}"
        raise FormatError(f"{data.where}: no two pictures; they are called {names}, but the fields are {', '.join(data.values)[:100]}")
    prompt = data.prompt()
    note_missing_prompt(data, reading)
    first, second = (_picture(data, side, prompt, pictures) for side in sides)
    for number, value in enumerate(task.items("annotations")):
        annotation = Field(value, f"{task.where}, field annotations[{number}]")
        answer = _answer(annotation, (first, second), reading)
        if answer is not None:
            yield ImportedJudgement(
                prompt=prompt,
                kind="pair",
                pictures=(first, second),
                answer=answer,
                annotator=_annotator(annotation, reading.annotator),
                where=annotation.where,
            )


def _picture(data: Field, side: str, prompt: str, pictures: NamedPictures) -> str:
    """Read the picture from the file that is named, or identify it by its hash. If there are both, they must agree."""
    known = data.values.get(f"{side}_sha256")
    if known is not None and not (isinstance(known, str) and HASH.fullmatch(known)):
        raise data.wrong(f"{side}_sha256", "64 hexadecimal digits")
    if data.values[side] is None and known is not None:
        return pictures.add(ImportedPicture(id=known, prompt=prompt, sha256=known, where=data.place(side)))
    found = pictures.read(data.values[side], prompt, data.place(side))
    if known not in (None, found):
        raise FormatError(f"{data.place(f'{side}_sha256')}: it is not the hash of {side}, which is another picture or damaged")
    return found


def _answer(annotation: Field, pair: tuple[str, str], reading: Reading) -> ImportedAnswer | None:
    """The answer in an annotation; None if it says nothing about preference.

    Raises:
        FormatError: no result can be read, and at least one is malformed.
    """
    if annotation.truth("was_cancelled", default=False):
        return ImportedAnswer(outcome="skip")
    found: ImportedAnswer | None = None
    others: list[FormatError] = []
    types: list[str] = []
    for number, value in enumerate(annotation.items("result")):
        result = Field(value, f"{annotation.where}.result[{number}]")
        types.append(str(result.values.get("type")))
        try:
            found = _said(result, pair) or found
        except FormatError as error:  # the result may belong to another question
            others.append(error)
    if found is None and others:
        raise others[0]
    if found is None:
        reading.passed_over[f"annotations have no result of type pairwise or choices (found {', '.join(types)[:60] or 'none'})"] += 1
    return found


def _said(result: Field, pair: tuple[str, str]) -> ImportedAnswer | None:
    if result.values.get("type") == "pairwise":
        word, where = result.within("value").text("selected"), result.place("value.selected")
    elif result.values.get("type") == "choices":
        chosen = result.within("value").items("choices")
        word, where = str(chosen[0]) if len(chosen) == 1 else "", result.place("value.choices")
    else:
        return None
    key = word.strip().lower().replace(" ", "_")
    if key in ("left", "right"):
        return ImportedAnswer(outcome="win", winner=pair[key == "right"])
    if key not in OUTCOMES:
        raise FormatError(f"{where}: {word[:100]!r} is none of left, right, tie, both_bad, skip")
    return ImportedAnswer(outcome=OUTCOMES[key])


def _annotator(annotation: Field, importer: str) -> str:
    """The annotator's handle. Label Studio names people by a number, or by an object with an e-mail address, which is not stored."""
    who = annotation.values.get("annotator", annotation.values.get("completed_by"))
    if isinstance(who, dict):
        who = who.get("id", who.get("email"))
    return importer if who is None else handle_of(who)
