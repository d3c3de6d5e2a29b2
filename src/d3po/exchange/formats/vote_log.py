"""d3po's vote log: JSONL with every picture and every vote event, withdrawn and replaced ones included. It loses nothing."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, get_args

from d3po.errors import FormatError
from d3po.exchange.formats.base import AbstractFormat, NamedPictures, PictureFolder, Reading, Record, Written, count_lines, whole_file
from d3po.exchange.formats.neutral import Event, ImportedAnswer, ImportedJudgement, ImportedPicture, Item, clean_handle
from d3po.exchange.formats.parsing import Element, Field, json_lines
from d3po.preferences.records import AnnotatorKind, Kind, Origin, Outcome, Purpose

HEAD = {"format": "d3po-votes", "version": 1}
HASH = re.compile(r"[0-9a-f]{64}")


class VoteLog(AbstractFormat):
    """Holds everything: questions of all kinds, events, annotators, the order shown, times, the pictures' origin."""

    name: ClassVar[str] = "jsonl"
    summary: ClassVar[str] = "d3po's log of every vote event; loses nothing"
    expects: ClassVar[str] = "lines with a judgement"

    def records(self, reading: Reading, pictures: NamedPictures) -> Iterator[Record]:
        lines = json_lines(reading.source)
        first = next(lines, None)
        head = None if first is None else first.field()
        if head is None or head.values.get("format") != HEAD["format"]:
            raise FormatError(f'{reading.source}, line 1, field format: the first line is {{"format": "d3po-votes", "version": 1}}')
        if head.values.get("version") != HEAD["version"]:
            raise FormatError(f"{reading.source}, line 1, field version: {head.values.get('version')!r} is not 1; update d3po to read it")
        known: set[tuple[str, str]] = set()
        for line in lines:
            yield partial(_read, line, pictures, known)

    def write(self, items: Iterable[Item], target: Path) -> Written:
        written, pictures = Written(), PictureFolder(target)
        with whole_file(target) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(HEAD) + "\n")
            for item in items:
                if isinstance(item, ImportedPicture):
                    pictures.keep(item)
                    written.pictures += 1
                    body = {name: value for name, value in vars(item).items() if name not in ("content", "where")}
                    line: dict[str, Any] = {"picture": body | {"file": pictures.find(item.prompt, item.id)}}
                else:
                    written.judgements += 1
                    line = {"judgement": {name: value for name, value in asdict(item).items() if name != "where"}}
                file.write(json.dumps(line | {"sha256": _digest(item)}, ensure_ascii=False) + "\n")
        return written

    def count(self, source: Path) -> int | None:
        lines = count_lines(source)
        return None if lines is None else max(0, lines - 1)


def _read(element: Element, pictures: NamedPictures, known: set[tuple[str, str]]) -> Iterator[ImportedJudgement]:
    line = element.field()
    if "picture" in line.values:
        picture = _picture(line.within("picture"), pictures)
        _refuse_changed(line, picture)
        pictures.add(picture)
        known.add((picture.prompt, picture.id))
        return
    judgement = _judgement(line.within("judgement"))
    _refuse_changed(line, judgement)
    strangers = [name for name in judgement.pictures if (judgement.prompt, name) not in known]
    if strangers:
        raise FormatError(f"{line.place('judgement.pictures')}: picture {strangers[0][:20]} did not come before")
    yield replace(judgement, annotator=clean_handle(judgement.annotator))


def _digest(item: Item) -> str:
    """A hash of a line's content, independent of the order of its fields and of white space."""
    said = {name: value for name, value in asdict(replace(item, where="")).items() if name != "content"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _refuse_changed(line: Field, item: Item) -> None:
    """Check a line against the hash in it; lines of logs written before lines had a hash have none.

    Raises:
        FormatError: the line was changed after it was exported.
    """
    if line.values.get("sha256", None) not in (None, _digest(item)):
        raise FormatError(
            f"{line.place('sha256')}: it is not the hash of the line's content, which was changed after it was exported; "
            "export it again, or remove the hash to import the changed content"
        )


def _picture(line: Field, pictures: NamedPictures) -> ImportedPicture:
    file, sha256 = line.values.get("file"), line.text("sha256")
    content = None if file is None else pictures.bytes(file, line.place("file"))
    if content is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise FormatError(f"{line.place('sha256')}: it is not the hash of {str(file)[:200]}, which is another picture or damaged")
    return ImportedPicture(
        id=line.text("id"),
        prompt=_prompt(line),
        sha256=sha256,
        content=content,
        model=line.text("model", ""),
        origin=_one_of(line, "origin", get_args(Origin), "imported"),
        series=line.text("series", ""),
        number=_whole(line, "number"),
        policy=line.text("policy", ""),
        seed=_whole(line, "seed"),
        where=line.place("file"),
    )


def _judgement(line: Field) -> ImportedJudgement:
    pictures = line.items("pictures")
    if not pictures or not all(isinstance(name, str) for name in pictures) or len(set(pictures)) < len(pictures):
        raise line.wrong("pictures", "a list of different picture ids")
    answer, expected, event = (line.values.get(name) for name in ("answer", "expected", "event"))
    judgement = ImportedJudgement(
        prompt=_prompt(line),
        kind=_one_of(line, "kind", get_args(Kind)),
        purpose=_one_of(line, "purpose", get_args(Purpose), "train"),
        pictures=tuple(pictures),
        answer=None if answer is None else _answer(line.within("answer"), pictures),
        expected=None if expected is None else _answer(line.within("expected"), pictures),
        annotator=line.text("annotator"),
        annotator_kind=_one_of(line, "annotator_kind", get_args(AnnotatorKind), "human"),
        event=None if event is None else _event(line.within("event")),
        where=line.where,
    )
    if judgement.answer is None and (judgement.event is None or judgement.event.supersedes is None):
        raise line.wrong("answer", "an answer, or an event that supersedes one")
    return judgement


def _prompt(line: Field) -> str:
    """The prompt exactly as it was exported, since it is part of a picture's identity."""
    line.prompt("prompt")
    return line.text("prompt")


def _answer(line: Field, pictures: list[str]) -> ImportedAnswer:
    values: Mapping[str, Any] = line.values.get("values") or {}
    if not isinstance(values, dict):
        raise line.wrong("values", "an object of numbers by picture id")
    winner = line.values.get("winner")
    strangers = [name for name in [*values, *([] if winner is None else [winner])] if name not in pictures]
    if strangers:
        raise FormatError(f"{line.where}: it speaks of picture {str(strangers[0])[:20]}, which is not in the question")
    inside = Field(values, line.place("values"))
    return ImportedAnswer(
        outcome=_one_of(line, "outcome", get_args(Outcome)),
        winner=winner,
        values={name: inside.number(name) for name in values},
        reason=None if line.values.get("reason") is None else line.text("reason"),
    )


def _event(line: Field) -> Event:
    received, words = _whole(line, "received_at"), line.values.get("payload_hash")
    if received is None:
        raise line.wrong("received_at", "milliseconds since 1970")
    if not isinstance(words, str) or not HASH.fullmatch(words):
        raise line.wrong("payload_hash", "64 hexadecimal digits")
    return Event(
        id=line.text("id"),
        assignment=line.text("assignment"),
        supersedes=None if line.values.get("supersedes") is None else line.text("supersedes"),
        rt_ms=_whole(line, "rt_ms"),
        client=None if line.values.get("client") is None else line.text("client"),
        received_at=received,
        payload_hash=words,
    )


def _whole(line: Field, name: str) -> int | None:
    value = line.values.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise line.wrong(name, "a whole number")
    return value


def _one_of(line: Field, name: str, allowed: tuple[Any, ...], default: Any = None) -> Any:
    value = line.values.get(name, default)
    if value not in allowed:
        raise line.wrong(name, f"one of {', '.join(allowed)}")
    return value
