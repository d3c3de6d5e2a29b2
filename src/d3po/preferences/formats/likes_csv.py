"""Likes: a CSV with image, prompt and like (true or false), one picture a row, as KTO reads it."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from d3po.errors import FormatError
from d3po.preferences.formats.base import AbstractFormat, PictureFiles, PictureFolder, Reading, Written, count_lines, left_out, whole_file
from d3po.preferences.formats.neutral import ImportedAnswer, ImportedJudgement, ImportedPicture, Item, handle_of
from d3po.preferences.formats.parsing import Field, open_text

COLUMNS = ("image", "prompt", "like", "annotator")
LIKES = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class LikesCsv(AbstractFormat):
    """Thumbs up and down, with annotators; a grid's marks become thumbs, down for the marked."""

    name: ClassVar[str] = "likes_csv"
    summary: ClassVar[str] = "image,prompt,like[,annotator]; like is true or false"

    def read(self, reading: Reading) -> Iterator[Item]:
        files = PictureFiles(reading.images)
        with open_text(reading.source, newline="") as file:
            rows = csv.DictReader(file, strict=True)
            for row in _checked(rows, reading.source):
                yield from _row(row, files, reading.annotator)

    def write(self, items: Iterable[Item], target: Path) -> Written:
        written, pictures = Written(), PictureFolder(target)
        with whole_file(target) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, quoting=csv.QUOTE_MINIMAL)
            rows.writerow(COLUMNS)
            for item in items:
                if isinstance(item, ImportedPicture):
                    pictures.keep(item)
                    written.pictures += 1
                    continue
                likes = _likes(item)
                for picture, like in likes.items():
                    rows.writerow([pictures.path(item.prompt, picture), item.prompt, "true" if like else "false", item.annotator])
                if likes:
                    written.judgements += 1
                else:
                    left_out(written, item)
        return written

    def count(self, source: Path) -> int | None:
        lines = count_lines(source)
        return None if lines is None else max(0, lines - 1)


def _checked(rows: "csv.DictReader[str]", source: Path) -> Iterator[Field]:
    try:
        missing = [column for column in COLUMNS[:3] if column not in (rows.fieldnames or ())]
        if missing:
            raise FormatError(f"{source}, line 1, field {missing[0]}: no such column; the first line is image,prompt,like[,annotator]")
        for row in rows:
            if None in row or None in row.values():
                raise FormatError(f"{source}, line {rows.line_num}: not as many fields as the first line has")
            yield Field(row, f"{source}, line {rows.line_num}")
    except csv.Error as error:
        raise FormatError(f"{source}, line {rows.line_num}: {error}") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{source}: not UTF-8 text ({error.reason})") from error


def _row(row: Field, files: PictureFiles, importer: str) -> Iterator[Item]:
    prompt, said = row.text("prompt"), row.text("like").strip().lower()
    if said not in LIKES:
        raise row.wrong("like", "true or false")
    picture, new = files.read(row.text("image"), prompt, row.place("image"))
    yield from new
    yield ImportedJudgement(
        prompt=prompt,
        kind="thumb",
        pictures=(picture,),
        answer=ImportedAnswer(outcome="up" if LIKES[said] else "down"),
        annotator=handle_of(row.values["annotator"]) if row.values.get("annotator") else importer,
    )


def _likes(judgement: ImportedJudgement) -> dict[str, bool]:
    answer = judgement.answer
    if answer is None:
        return {}
    if answer.outcome in ("up", "down"):
        return {judgement.pictures[0]: answer.outcome == "up"}
    if answer.outcome == "marks":
        return {picture: not answer.values.get(picture, 0.0) for picture in judgement.pictures}
    return {}
