"""Pictures and judgements for tests of formats, and what is equal after a round trip."""

import io
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from d3po.errors import FormatError
from d3po.exchange.formats.base import AbstractFormat, Reading, Written
from d3po.exchange.formats.neutral import BadRecord, ImportedAnswer, ImportedJudgement, ImportedPicture, Item, picture_of
from d3po.preferences.records import Kind, Outcome


@lru_cache
def png(number: int, *, size: tuple[int, int] = (2, 2)) -> bytes:
    """A picture of one colour, another for each number."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (number % 256, number // 256 % 256, 7)).save(buffer, format="PNG")
    return buffer.getvalue()


def picture(number: int, prompt: str = "a cat") -> ImportedPicture:
    return picture_of(png(number), prompt)


def name(number: int) -> str:
    """The id of a picture."""
    return picture(number).id


def said(kind: Kind, numbers: Sequence[int], outcome: Outcome, **given: Any) -> ImportedJudgement:
    """A judgement of pictures by their numbers; `winner` and `values` are by number, too."""
    winner, values = given.pop("winner", None), given.pop("values", {})
    answer = ImportedAnswer(
        outcome=outcome,
        winner=None if winner is None else name(winner),
        values={name(number): float(value) for number, value in values.items()},
    )
    who: dict[str, Any] = {"prompt": "a cat", "annotator": "ada"}
    return ImportedJudgement(kind=kind, pictures=tuple(name(number) for number in numbers), answer=answer, **(who | given))


def won(winner: int, loser: int, **given: Any) -> ImportedJudgement:
    return said("pair", (winner, loser), "win", winner=winner, **given)


def stream(judgements: Iterable[ImportedJudgement], pictures: Iterable[int] = range(40)) -> list[Item]:
    """The judgements with their pictures before them."""
    numbers = {name(number): number for number in pictures}
    items: list[Item] = []
    seen: set[tuple[str, str]] = set()
    for judgement in judgements:
        for each in judgement.pictures:
            if (judgement.prompt, each) not in seen:
                seen.add((judgement.prompt, each))
                items.append(picture(numbers[each], judgement.prompt))
        items.append(judgement)
    return items


def read(kind: AbstractFormat, source: Path, **given: Any) -> list[Item]:
    """Everything in the source; the first bad record is raised."""
    images = source if source.is_dir() else source.parent
    return [sound(item) for item in kind.read(Reading(source=source, images=images, **given))]


def answered(items: Iterable[Item]) -> list[tuple[ImportedJudgement, ImportedAnswer]]:
    """The judgements that say something, and what."""
    return [(item, item.answer) for item in items if isinstance(item, ImportedJudgement) and item.answer is not None]


def sound(item: Item | BadRecord) -> Item:
    if isinstance(item, BadRecord):
        raise FormatError(item.message)
    return item


Back = tuple[list[ImportedJudgement], dict[tuple[str, str], bytes | None], Written]


def round_trip(kind: AbstractFormat, items: Iterable[Item], target: str = "file") -> Back:
    """The judgements and the pictures' bytes after writing and reading."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / target
        written = kind.write(items, path)
        back = read(kind, path)
    judgements = [item for item in back if isinstance(item, ImportedJudgement)]
    pictures = {(item.prompt, item.id): item.content for item in back if isinstance(item, ImportedPicture)}
    return judgements, pictures, written


def contents(items: Iterable[Item]) -> dict[tuple[str, str], bytes | None]:
    return {(item.prompt, item.id): item.content for item in items if isinstance(item, ImportedPicture)}
