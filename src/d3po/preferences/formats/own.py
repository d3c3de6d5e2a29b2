"""Our own log: JSONL with every picture and every vote event, withdrawn and replaced ones too. It loses nothing."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, get_args

from d3po.errors import FormatError
from d3po.preferences.formats.base import AbstractFormat, PictureFolder, Reading, Written, count_lines, whole_file
from d3po.preferences.formats.images import read_picture
from d3po.preferences.formats.neutral import Event, ImportedAnswer, ImportedJudgement, ImportedPicture, Item
from d3po.preferences.formats.parsing import Field, json_lines
from d3po.preferences.records import AnnotatorKind, Kind, Origin, Outcome, Purpose

HEAD = {"format": "d3po-votes", "version": 1}


class Own(AbstractFormat):
    """Everything: questions of all kinds, events, annotators, order shown, times, where pictures came from."""

    name: ClassVar[str] = "jsonl"
    summary: ClassVar[str] = "our own log of every vote event; loses nothing"

    def read(self, reading: Reading) -> Iterator[Item]:
        lines = json_lines(reading.source)
        head = next(lines, None)
        if head is None or head.values.get("format") != HEAD["format"]:
            raise FormatError(f'{reading.source}, line 1, field format: the first line is {{"format": "d3po-votes", "version": 1}}')
        if head.values.get("version") != HEAD["version"]:
            raise FormatError(f"{reading.source}, line 1, field version: {head.values.get('version')!r} is not 1; update d3po to read it")
        known: set[tuple[str, str]] = set()
        for line in lines:
            item = _picture(line.within("picture"), reading.images) if "picture" in line.values else _judgement(line.within("judgement"))
            if isinstance(item, ImportedPicture):
                known.add((item.prompt, item.id))
            else:
                strangers = [name for name in item.pictures if (item.prompt, name) not in known]
                if strangers:
                    raise FormatError(f"{line.place('judgement.pictures')}: picture {strangers[0][:20]} did not come before")
            yield item

    def write(self, items: Iterable[Item], target: Path) -> Written:
        written, pictures = Written(), PictureFolder(target)
        with whole_file(target) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(HEAD) + "\n")
            for item in items:
                if isinstance(item, ImportedPicture):
                    pictures.keep(item)
                    written.pictures += 1
                    body = {name: value for name, value in vars(item).items() if name != "content"}
                    line: dict[str, Any] = {"picture": body | {"file": pictures.find(item.prompt, item.id)}}
                else:
                    written.judgements += 1
                    line = {"judgement": asdict(item)}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        return written

    def count(self, source: Path) -> int | None:
        lines = count_lines(source)
        return None if lines is None else max(0, lines - 1)


def _picture(line: Field, root: Path) -> ImportedPicture:
    file = line.values.get("file")
    return ImportedPicture(
        id=line.text("id"),
        prompt=line.text("prompt"),
        sha256=line.text("sha256"),
        content=None if file is None else read_picture(root, file, line.place("file")),
        model=line.text("model", ""),
        origin=_one_of(line, "origin", get_args(Origin), "imported"),
        series=line.text("series", ""),
        number=_whole(line, "number"),
        policy=line.text("policy", ""),
        seed=_whole(line, "seed"),
    )


def _judgement(line: Field) -> ImportedJudgement:
    pictures = line.items("pictures")
    if not pictures or not all(isinstance(name, str) for name in pictures) or len(set(pictures)) < len(pictures):
        raise line.wrong("pictures", "a list of different picture ids")
    answer, expected, event = (line.values.get(name) for name in ("answer", "expected", "event"))
    judgement = ImportedJudgement(
        prompt=line.text("prompt"),
        kind=_one_of(line, "kind", get_args(Kind)),
        purpose=_one_of(line, "purpose", get_args(Purpose), "train"),
        pictures=tuple(pictures),
        answer=None if answer is None else _answer(line.within("answer"), pictures),
        expected=None if expected is None else _answer(line.within("expected"), pictures),
        annotator=line.text("annotator"),
        annotator_kind=_one_of(line, "annotator_kind", get_args(AnnotatorKind), "human"),
        event=None if event is None else _event(line.within("event")),
    )
    if judgement.answer is None and (judgement.event is None or judgement.event.supersedes is None):
        raise line.wrong("answer", "an answer, or an event that supersedes one")
    return judgement


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
    received = _whole(line, "received_at")
    if received is None:
        raise line.wrong("received_at", "milliseconds since 1970")
    return Event(
        id=line.text("id"),
        assignment=line.text("assignment"),
        supersedes=None if line.values.get("supersedes") is None else line.text("supersedes"),
        rt_ms=_whole(line, "rt_ms"),
        client=None if line.values.get("client") is None else line.text("client"),
        received_at=received,
        payload_hash=line.text("payload_hash"),
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
