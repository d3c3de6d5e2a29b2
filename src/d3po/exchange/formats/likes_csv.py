"""Likes: a CSV file with image, prompt and like (true or false), one picture in each row, the data that KTO reads."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from d3po.errors import FormatError
from d3po.escaping import from_spreadsheet_cell, spreadsheet_cell
from d3po.exchange.formats.base import (
    AbstractFormat,
    NamedPictures,
    PictureFolder,
    Reading,
    Record,
    Written,
    count_lines,
    left_out,
    whole_file,
)
from d3po.exchange.formats.neutral import ImportedAnswer, ImportedJudgement, ImportedPicture, Item, handle_of
from d3po.exchange.formats.parsing import Field, open_text, refuse_broken_text

COLUMNS = ("image", "prompt", "like", "annotator")


class LikesCsv(AbstractFormat):
    """Holds thumbs up and down, with annotators. A grid's marks are written as thumbs, down for marked pictures and up for the others."""

    name: ClassVar[str] = "likes_csv"
    summary: ClassVar[str] = "image,prompt,like[,annotator]; like is true or false"
    expects: ClassVar[str] = "rows with image, prompt and like"

    def records(self, reading: Reading, pictures: NamedPictures) -> Iterator[Record]:
        with open_text(reading.source, newline="") as file:
            rows = csv.reader(file, strict=True)
            columns = _columns(rows, reading.source)
            for row in _rows(rows, len(columns), reading.source):
                yield partial(_judgement, row, columns, pictures, reading.annotator)

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
                    cells = (pictures.path(item.prompt, picture), item.prompt, "true" if like else "false", item.annotator)
                    rows.writerow(map(spreadsheet_cell, cells))
                if likes:
                    written.judgements += 1
                else:
                    left_out(written, item)
        return written

    def count(self, source: Path) -> int | None:
        lines = count_lines(source)
        return None if lines is None else max(0, lines - 1)


@dataclass(frozen=True, kw_only=True)
class _Line:
    where: str
    cells: list[str] | FormatError
    """The cells, or the error if the row cannot be read."""


def _columns(rows: "Iterator[list[str]]", source: Path) -> list[str]:
    try:
        names = [name.strip() for name in next(rows, [])]
    except (csv.Error, UnicodeDecodeError) as error:
        raise FormatError(f"{source}, line 1: {error}") from error
    missing = [column for column in COLUMNS[:3] if column not in names]
    if missing:
        raise FormatError(
            f"{source}, line 1, field {missing[0]}: no such column; the first line is image,prompt,like[,annotator], "
            f"but here it is {','.join(names)[:100]!r}"
        )
    return names


def _rows(rows: Any, width: int, source: Path) -> Iterator[_Line]:
    """Yield the rows, including those that cannot be read; empty rows are skipped.

    Raises:
        FormatError: the file is not text.
    """
    while True:
        try:
            cells = next(rows)
        except StopIteration:
            return
        except UnicodeDecodeError as error:
            raise FormatError(f"{source}: not {error.encoding.upper()} text ({error.reason}); save the file as UTF-8") from error
        except csv.Error as error:
            where = f"{source}, line {rows.line_num}"
            yield _Line(where=where, cells=FormatError(f"{where}: {error}"))
            continue
        where = f"{source}, line {rows.line_num}"
        if cells:
            wrong = FormatError(f"{where}: not as many fields as the first line has ({len(cells)}, not {width})")
            yield _Line(where=where, cells=cells if len(cells) == width else wrong)


def _judgement(given: _Line, columns: list[str], pictures: NamedPictures, importer: str) -> Iterator[ImportedJudgement]:
    if isinstance(given.cells, FormatError):
        raise given.cells
    row = Field({name: from_spreadsheet_cell(cell) for name, cell in zip(columns, given.cells, strict=True)}, given.where)
    for name in columns:
        refuse_broken_text(row.text(name), row.place(name))
    prompt, like = row.prompt("prompt"), row.truth("like", default=False)
    picture = pictures.read(row.text("image"), prompt, row.place("image"))
    yield ImportedJudgement(
        prompt=prompt,
        kind="thumb",
        pictures=(picture,),
        answer=ImportedAnswer(outcome="up" if like else "down"),
        annotator=handle_of(row.values["annotator"]) if row.values.get("annotator") else importer,
        where=row.where,
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
