"""Chosen and rejected: one JSON object in each line, with a prompt and the paths of two pictures, as in many preference data sets."""

import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar

from d3po.exchange.formats.base import (
    AbstractFormat,
    NamedPictures,
    PictureFolder,
    Reading,
    Record,
    Written,
    count_lines,
    left_out,
    note_missing_prompt,
    whole_file,
)
from d3po.exchange.formats.neutral import ImportedAnswer, ImportedJudgement, ImportedPicture, Item, handle_of, pairs_of
from d3po.exchange.formats.parsing import Element, json_lines


class JsonlPairs(AbstractFormat):
    """Holds wins of pairs, with annotators."""

    name: ClassVar[str] = "jsonl_pairs"
    summary: ClassVar[str] = 'a line a pair: {"prompt", "chosen", "rejected", "annotator"}'
    expects: ClassVar[str] = "lines with prompt, chosen and rejected"

    def records(self, reading: Reading, pictures: NamedPictures) -> Iterator[Record]:
        for line in json_lines(reading.source):
            yield partial(_judgement, line, pictures, reading)

    def write(self, items: Iterable[Item], target: Path) -> Written:
        written, pictures = Written(), PictureFolder(target)
        with whole_file(target) as temporary, temporary.open("w", encoding="utf-8") as file:
            for item in items:
                if isinstance(item, ImportedPicture):
                    pictures.keep(item)
                    written.pictures += 1
                    continue
                decided = [pair for pair in pairs_of(item) if pair.share in (0, 1)]
                for pair in decided:
                    best, worst = (pair.first, pair.second) if pair.share == 1 else (pair.second, pair.first)
                    paths = {"chosen": pictures.path(item.prompt, best), "rejected": pictures.path(item.prompt, worst)}
                    line = {"prompt": item.prompt, **paths, "annotator": item.annotator}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
                if decided:
                    written.judgements += 1
                else:
                    left_out(written, item)
        return written

    def count(self, source: Path) -> int | None:
        return count_lines(source)


def _judgement(element: Element, pictures: NamedPictures, reading: Reading) -> Iterator[ImportedJudgement]:
    line = element.field()
    prompt = line.prompt()
    note_missing_prompt(line, reading)
    chosen = pictures.read(line.text("chosen"), prompt, line.place("chosen"))
    rejected = pictures.read(line.text("rejected"), prompt, line.place("rejected"))
    who = line.values.get("annotator")
    yield ImportedJudgement(
        prompt=prompt,
        kind="pair",
        pictures=(chosen, rejected),
        answer=ImportedAnswer(outcome="win", winner=chosen),
        annotator=reading.annotator if who is None else handle_of(who),
        where=line.where,
    )
