"""Chosen and rejected: one JSON object a line with a prompt and the paths of two pictures, as many preference data sets have it."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from d3po.errors import FormatError
from d3po.preferences.formats.base import AbstractFormat, PictureFiles, PictureFolder, Reading, Written, count_lines, left_out, whole_file
from d3po.preferences.formats.neutral import ImportedAnswer, ImportedJudgement, ImportedPicture, Item, handle_of, pairs_of
from d3po.preferences.formats.parsing import Field, json_lines


class JsonlPairs(AbstractFormat):
    """Wins of pairs, with annotators."""

    name: ClassVar[str] = "jsonl_pairs"
    summary: ClassVar[str] = 'a line a pair: {"prompt", "chosen", "rejected", "annotator"}'

    def read(self, reading: Reading) -> Iterator[Item]:
        files = PictureFiles(reading.images)
        for line in json_lines(reading.source):
            yield from _line(line, files, reading.annotator)

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


def _line(line: Field, files: PictureFiles, importer: str) -> Iterator[Item]:
    prompt = line.text("prompt", "")
    chosen, new = files.read(line.text("chosen"), prompt, line.place("chosen"))
    rejected, more = files.read(line.text("rejected"), prompt, line.place("rejected"))
    if chosen == rejected:
        raise FormatError(f"{line.place('rejected')}: it is the same picture as the chosen one")
    yield from (*new, *more)
    who = line.values.get("annotator")
    yield ImportedJudgement(
        prompt=prompt,
        kind="pair",
        pictures=(chosen, rejected),
        answer=ImportedAnswer(outcome="win", winner=chosen),
        annotator=importer if who is None else handle_of(who),
    )
