"""Pick-a-Pic's parquet files (Kirstain et al. 2023): two pictures and their labels in each row, with the pictures' bytes. Needs pyarrow."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar

from d3po.errors import FormatError
from d3po.exchange.formats.base import AbstractFormat, NamedPictures, Reading, Record, Spill, Written, left_out, spill, whole_file
from d3po.exchange.formats.neutral import (
    ImportedAnswer,
    ImportedJudgement,
    ImportedPicture,
    Item,
    handle_of,
    pairs_of,
    picture_of,
)
from d3po.exchange.formats.parsing import Field, refuse_broken_text
from d3po.inputs import open_regular

NEEDED = ("caption", "jpg_0", "jpg_1", "label_0", "label_1")
OPTIONAL = ("has_label", "user_id", "model_0", "model_1")
ROWS = 32
"""Rows held in memory at once, two pictures each."""


class PickAPic(AbstractFormat):
    """Holds wins, ties and shares of preference of pairs, with annotators and the models that sampled the pictures."""

    name: ClassVar[str] = "pickapic"
    summary: ClassVar[str] = "Pick-a-Pic parquet: caption, jpg_0, jpg_1, label_0, label_1"
    expects: ClassVar[str] = "rows with has_label true"

    def records(self, reading: Reading, pictures: NamedPictures) -> Iterator[Record]:
        with _opened(reading.source) as file:
            missing = [column for column in NEEDED if column not in file.schema_arrow.names]
            if missing:
                found = ", ".join(file.schema_arrow.names)[:200]
                raise FormatError(
                    f"{reading.source}, line 1, field {missing[0]}: no such column; {', '.join(NEEDED)} are needed, but here are {found}"
                )
            columns = [*NEEDED, *(column for column in OPTIONAL if column in file.schema_arrow.names)]
            for row, values in enumerate(_values(file, columns, reading.source), 1):
                yield partial(_judgement, Field(values, f"{reading.source}, line {row}"), pictures, reading)

    def write(self, items: Iterable[Item], target: Path) -> Written:
        written = Written()
        arrow, parquet = _pyarrow()
        schema = _schema(arrow)
        with spill() as pictures, whole_file(target) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
            rows: list[dict[str, Any]] = []
            for item in items:
                if isinstance(item, ImportedPicture):
                    pictures.keep(item)
                    written.pictures += 1
                    continue
                new = list(_rows(item, pictures, written.judgements))
                if new:
                    written.judgements += 1
                else:
                    left_out(written, item)
                rows += new
                if len(rows) >= ROWS:
                    writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
                    rows = []
            writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
        return written

    def count(self, source: Path) -> int | None:
        with _opened(source) as file:
            return file.metadata.num_rows


def _values(file: Any, columns: list[str], source: Path) -> Iterator[dict[str, Any]]:
    arrow, _ = _pyarrow()
    try:
        for batch in file.iter_batches(batch_size=ROWS, columns=columns):
            yield from batch.to_pylist()
    except (OSError, arrow.ArrowException, UnicodeDecodeError) as error:
        raise FormatError(f"{source}: damaged, or not a parquet file of these columns: {error}") from error


def _judgement(row: Field, pictures: NamedPictures, reading: Reading) -> Iterator[ImportedJudgement]:
    prompt = row.prompt("caption")
    first, second = (_picture(row, side, prompt, pictures) for side in ("0", "1"))
    if not row.truth("has_label", default=True):
        reading.passed_over["rows have has_label false: their pictures came in, without a vote"] += 1
        return
    who = row.values.get("user_id")
    yield ImportedJudgement(
        prompt=prompt,
        kind="pair",
        pictures=(first, second),
        answer=_answer(row, first, second),
        annotator=reading.annotator if who is None else handle_of(who),
        where=row.where,
    )


def _picture(row: Field, side: str, prompt: str, pictures: NamedPictures) -> str:
    name = f"jpg_{side}"
    content = row.values[name]
    if isinstance(content, dict):  # the form in which the library datasets stores pictures
        content = content.get("bytes")
    if not isinstance(content, bytes) or not content:
        raise row.wrong(name, "a picture's bytes")
    model = str(row.values.get(f"model_{side}") or "")
    refuse_broken_text(model, row.place(f"model_{side}"))
    return pictures.add(picture_of(content, prompt, model=model, where=row.place(name)))


def _answer(row: Field, first: str, second: str) -> ImportedAnswer:
    a, b = row.number("label_0"), row.number("label_1")
    if not (isfinite(a) and isfinite(b) and a >= 0 and b >= 0 and abs(a + b - 1) < 1e-6):
        raise FormatError(f"{row.place('label_0')}: {a} and label_1 {b} are no shares of preference, which sum to 1")
    if a == b:
        return ImportedAnswer(outcome="tie")
    if {a, b} == {0.0, 1.0}:
        return ImportedAnswer(outcome="win", winner=first if a == 1 else second)
    return ImportedAnswer(outcome="share", values={first: a, second: b})


def _rows(judgement: ImportedJudgement, pictures: Spill, number: int) -> Iterator[dict[str, Any]]:
    when = None if judgement.event is None else datetime.fromtimestamp(judgement.event.received_at / 1000, UTC)
    for pair in pairs_of(judgement):
        contents = [pictures.content(judgement.prompt, side) for side in (pair.first, pair.second)]
        best = "tie" if pair.share == 0.5 else pair.first if pair.share > 0.5 else pair.second
        models = [pictures.about(judgement.prompt, side).model for side in (pair.first, pair.second)]
        yield {
            "are_different": True,
            "best_image_uid": best,
            "caption": judgement.prompt,
            "created_at": when,
            "has_label": True,
            "image_0_uid": pair.first,
            "image_1_uid": pair.second,
            "jpg_0": contents[0],
            "jpg_1": contents[1],
            "label_0": pair.share,
            "label_1": 1 - pair.share,
            "model_0": models[0],
            "model_1": models[1],
            "ranking_id": number,
            "user_id": judgement.annotator,
        }


def _schema(arrow: Any) -> Any:
    kinds: dict[str, Any] = dict.fromkeys(("best_image_uid", "caption", "image_0_uid", "image_1_uid"), arrow.string())
    kinds |= dict.fromkeys(("model_0", "model_1", "user_id"), arrow.string())
    kinds |= dict.fromkeys(("jpg_0", "jpg_1"), arrow.binary()) | dict.fromkeys(("label_0", "label_1"), arrow.float64())
    kinds |= dict.fromkeys(("are_different", "has_label"), arrow.bool_())
    kinds |= {"created_at": arrow.timestamp("ms", tz="UTC"), "ranking_id": arrow.int64()}
    return arrow.schema(sorted(kinds.items()))


@contextmanager
def _opened(source: Path) -> Generator[Any, None, None]:
    arrow, parquet = _pyarrow()
    with open_regular(source, str(source)) as file:
        try:
            opened = parquet.ParquetFile(file)
        except (OSError, arrow.ArrowException) as error:
            raise FormatError(f"{source}: not a readable parquet file: {error}") from error
        yield opened


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise FormatError("the format pickapic needs pyarrow; `pip install 'd3po[parquet]'`") from error
    return pyarrow, parquet
