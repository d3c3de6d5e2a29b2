"""The layout of D3PO's authors: a folder of JSON files, one for each annotator, each a list of n lists of K marks, -1 for a bad picture and 0 otherwise.

    prompt.json            n prompts
    images/00000.png ...   n * K pictures, those of the first prompt first, in the order of their names
    json/NAME.json         [n][K] of 0 and -1

Marks are matched to pictures by position alone. So all lengths must agree exactly: nothing is cut to the shortest file.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, unquote

from d3po.errors import FormatError, StorageError
from d3po.exchange.formats.addresses import locate
from d3po.exchange.formats.base import (
    AbstractFormat,
    NamedPictures,
    Reading,
    Record,
    Spill,
    Written,
    left_out,
    listed,
    spill,
    suffix_of,
    whole_file,
    write_json_array,
)
from d3po.exchange.formats.neutral import ImportedAnswer, ImportedJudgement, ImportedPicture, Item, handle_of
from d3po.exchange.formats.parsing import Element, json_array, parse_json
from d3po.inputs import read_regular
from d3po.pictures import SUFFIXES
from d3po.text import decode, prompt_of

Grid = tuple[str, tuple[str, ...]]
"""A prompt and its pictures' ids, sorted."""


class D3POJson(AbstractFormat):
    """Holds marks of bad pictures, with annotators. A row without a mark is no judgement, since "none is bad" cannot be told from "not looked at"."""

    name: ClassVar[str] = "d3po_json"
    summary: ClassVar[str] = "a folder: prompt.json, images/, json/NAME.json with [n][K] of 0 and -1"
    expects: ClassVar[str] = "rows of json/NAME.json with a mark of -1"

    def records(self, reading: Reading, pictures: NamedPictures) -> Iterator[Record]:
        prompts = _prompts(reading.source / "prompt.json", reading.images)
        names = _pictures(reading.source / "images", len(prompts))
        rows: list[list[str]] = [[] for _ in prompts]
        for row, prompt, paths in zip(rows, prompts, names, strict=True):
            yield partial(_take, row, prompt, paths, pictures)
        for path in _label_files(reading.source):
            yield from _rows(path, prompts, rows, reading)

    def write(self, items: Iterable[Item], target: Path) -> Written:
        written = Written()
        grids: dict[Grid, dict[str, ImportedJudgement]] = defaultdict(dict)
        if (target / "images").exists() and any((target / "images").iterdir()):
            raise StorageError(f"{target / 'images'} holds files already; choose an empty folder")
        with spill() as pictures:
            for item in items:
                if isinstance(item, ImportedPicture):
                    pictures.keep(item)
                    written.pictures += 1
                elif item.answer is None or not any(item.answer.values.values()) or item.answer.outcome != "marks":
                    left_out(written, item)
                else:
                    grids[item.prompt, tuple(sorted(item.pictures))][item.annotator] = item
            _write(target, _of_one_size(grids, written), pictures)
        return written

    def count(self, source: Path) -> int | None:
        return len(_prompts(source / "prompt.json", source)) * len(_label_files(source))


def _prompts(path: Path, root: Path) -> list[str]:
    found = locate(root, str(path.absolute()), str(path)).path
    prompts = parse_json(decode(read_regular(found, str(path)), str(path), FormatError), str(path))
    if not isinstance(prompts, list) or not prompts:
        raise FormatError(f"{path}: expected a list of prompts")
    for number, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise FormatError(f"{path}, entry {number + 1}: expected a text, found {prompt!r}")
    return [prompt_of(prompt, f"{path}, entry {number}", FormatError) for number, prompt in enumerate(prompts, 1)]


def _pictures(folder: Path, count: int) -> list[list[Path]]:
    """The files of each prompt's pictures."""
    if not folder.is_dir():
        raise FormatError(f"{folder} is no folder; the format d3po_json needs images/ with the pictures of all prompts")
    paths = [path for path in listed(folder) if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    size, rest = divmod(len(paths), count)
    if rest or size < 2:
        raise FormatError(f"{folder} has {len(paths)} pictures for {count} prompts; each prompt has equally many, 2 or more")
    return [paths[start : start + size] for start in range(0, len(paths), size)]


def _take(row: list[str], prompt: str, paths: Sequence[Path], pictures: NamedPictures) -> Iterator[ImportedJudgement]:
    """Read a prompt's pictures and add their ids to `row`; yields no judgement."""
    row += [pictures.read(str(path.absolute()), prompt, str(path)) for path in paths]
    yield from ()


def _label_files(source: Path) -> list[Path]:
    folder = source / "json"
    found = [path for path in listed(folder) if path.suffix == ".json"] if folder.is_dir() else []
    if not found:
        raise FormatError(f"{folder} has no JSON files; the format d3po_json needs one an annotator")
    return found


def _rows(path: Path, prompts: Sequence[str], rows: Sequence[Sequence[str]], reading: Reading) -> Iterator[Record]:
    locate(reading.images, str(path.absolute()), str(path))
    count = 0
    for element in json_array(path):
        if count == len(rows):
            raise FormatError(f"{element.where}: more rows than the {len(rows)} prompts of prompt.json")
        yield partial(_judgement, element, prompts[count], rows[count], handle_of(unquote(path.stem)))
        count += 1
    if count < len(rows):
        raise FormatError(
            f"{path}: {count} rows for the {len(rows)} prompts of prompt.json; labels are matched by position, so none may be missing"
        )


def _judgement(element: Element, prompt: str, row: Sequence[str], annotator: str) -> Iterator[ImportedJudgement]:
    if not row:
        raise FormatError(f"{element.where}: its pictures could not be read")
    bad = _bad(element.where, element.parsed(), row)
    if bad:
        yield ImportedJudgement(
            prompt=prompt,
            kind="grid",
            pictures=tuple(row),
            answer=ImportedAnswer(outcome="marks", values=dict.fromkeys(bad, 1.0)),
            annotator=annotator,
            where=element.where,
        )


def _bad(where: str, marks: Any, row: Sequence[str]) -> list[str]:
    if not isinstance(marks, list) or len(marks) != len(row):
        raise FormatError(f"{where}: expected a list of {len(row)} marks, as each prompt has {len(row)} pictures")
    for place, mark in enumerate(marks):
        if isinstance(mark, bool) or mark not in (0, -1):
            raise FormatError(f"{where}, mark {place + 1}: expected 0 or -1, found {json.dumps(mark)[:40]}")
    return [picture for picture, mark in zip(row, marks, strict=True) if mark == -1]


def _of_one_size(grids: dict[Grid, dict[str, ImportedJudgement]], written: Written) -> dict[Grid, dict[str, ImportedJudgement]]:
    """The grids with the most common number of pictures, since all rows of a file have the same length; the others are counted as left out."""
    sizes = Counter(len(pictures) for _, pictures in grids)
    size = max(sizes, key=lambda size: (sizes[size], size), default=0)
    for (_, pictures), judged in grids.items():
        if len(pictures) == size:
            written.judgements += len(judged)
        else:
            written.left_out[f"grid of {len(pictures)}"] += len(judged)
    return {grid: judged for grid, judged in grids.items() if len(grid[1]) == size}


def _write(target: Path, grids: dict[Grid, dict[str, ImportedJudgement]], pictures: Spill) -> None:
    write_json_array(target / "prompt.json", [prompt for prompt, _ in grids])
    place = 0
    for prompt, names in grids:
        for name in names:
            content = pictures.content(prompt, name)
            with whole_file(target / "images" / f"{place:05}{suffix_of(content)}") as temporary:
                temporary.write_bytes(content)
            place += 1
    for annotator in sorted({who for judged in grids.values() for who in judged}):
        rows = [_marks(names, judged.get(annotator)) for (_, names), judged in grids.items()]
        write_json_array(target / "json" / f"{quote(annotator, safe=' ')}.json", rows)


def _marks(names: Sequence[str], judgement: ImportedJudgement | None) -> list[int]:
    values = judgement.answer.values if judgement and judgement.answer else {}
    return [-1 if values.get(name) else 0 for name in names]
