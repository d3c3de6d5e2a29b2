"""Two folders, w/ for winners and l/ for losers: files with the same name are a pair, and NAME.txt or NAME.caption next to the winner is its prompt."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar

from d3po.errors import FormatError, StorageError
from d3po.exchange.formats.addresses import locate
from d3po.exchange.formats.base import AbstractFormat, NamedPictures, Reading, Record, Written, left_out, listed, spill, suffix_of
from d3po.exchange.formats.neutral import ImportedAnswer, ImportedJudgement, ImportedPicture, Item, pairs_of
from d3po.inputs import read_regular
from d3po.pictures import SUFFIXES
from d3po.text import decode, prompt_of

CAPTIONS = (".txt", ".caption")
LONGEST_CAPTION = 1024 * 1024
"""The largest size of a caption file in bytes."""


class Folders(AbstractFormat):
    """Holds wins of pairs, without annotators."""

    name: ClassVar[str] = "folders"
    summary: ClassVar[str] = "w/NAME.png beats l/NAME.png; the prompt is in w/NAME.txt"
    expects: ClassVar[str] = "pictures of one name in w/ and l/"

    def records(self, reading: Reading, pictures: NamedPictures) -> Iterator[Record]:
        winners, losers = (_pictures(reading.source / side) for side in ("w", "l"))
        alone = sorted(winners.keys() ^ losers.keys())
        if alone:
            raise FormatError(
                f"{reading.source}: {len(alone)} pictures are in one of w/ and l/ only, such as {alone[0]}; each needs a partner of its name"
            )
        for name in sorted(winners):
            yield partial(_judgement, winners[name], losers[name], pictures, reading)

    def write(self, items: Iterable[Item], target: Path) -> Written:
        written, number = Written(), 0
        for side in ("w", "l"):
            if (target / side).exists() and any((target / side).iterdir()):
                raise StorageError(f"{target / side} holds files already; choose an empty folder")
            _make(target / side)
        with spill() as pictures:
            for item in items:
                if isinstance(item, ImportedPicture):
                    pictures.keep(item)
                    written.pictures += 1
                    continue
                decided = [pair for pair in pairs_of(item) if pair.share in (0, 1)]
                for pair in decided:
                    first, second = (pair.first, pair.second) if pair.share == 1 else (pair.second, pair.first)
                    contents = (pictures.content(item.prompt, first), pictures.content(item.prompt, second))
                    _write_pair(target, f"{number:06}", contents, item.prompt)
                    number += 1
                if decided:
                    written.judgements += 1
                else:
                    left_out(written, item)
        return written

    def count(self, source: Path) -> int | None:
        return len(_pictures(source / "w"))


def _judgement(winner: Path, loser: Path, pictures: NamedPictures, reading: Reading) -> Iterator[ImportedJudgement]:
    prompt = _prompt(winner, reading)
    best = pictures.read(str(winner.absolute()), prompt, str(winner))
    worst = pictures.read(str(loser.absolute()), prompt, str(loser))
    yield ImportedJudgement(
        prompt=prompt,
        kind="pair",
        pictures=(best, worst),
        answer=ImportedAnswer(outcome="win", winner=best),
        annotator=reading.annotator,
        where=f"{winner} and {loser}",
    )


def _prompt(picture: Path, reading: Reading) -> str:
    for caption in (picture.with_suffix(ending) for ending in CAPTIONS):
        if caption.is_symlink() or caption.exists():
            found = locate(reading.images, str(caption.absolute()), str(caption))
            text = decode(read_regular(found.path, str(caption), largest=LONGEST_CAPTION), str(caption), FormatError)
            return prompt_of(text, str(caption), FormatError)
    reading.passed_over[f"pairs have no caption (w/NAME{' or w/NAME'.join(CAPTIONS)}), so that their prompt is empty"] += 1
    return ""


def _pictures(folder: Path) -> dict[str, Path]:
    """The pictures of a folder, by file name without suffix."""
    if not folder.is_dir():
        raise FormatError(f"{folder} is no folder; the format folders needs w/ and l/")
    found: dict[str, Path] = {}
    for path in listed(folder):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise FormatError(f"{path}: {found[path.stem].name} has the same name")
            found[path.stem] = path
    return found


def _write_pair(target: Path, name: str, contents: tuple[bytes, bytes], prompt: str) -> None:
    try:
        for side, content in zip(("w", "l"), contents, strict=True):
            (target / side / f"{name}{suffix_of(content)}").write_bytes(content)
        with (target / "w" / f"{name}.txt").open("w", encoding="utf-8", newline="") as file:
            file.write(prompt + "\n")
    except OSError as error:
        raise StorageError(f"cannot write to {target}: {error.strerror}; free some space or mend the permissions") from error


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {error.strerror}; mend the permissions") from error
