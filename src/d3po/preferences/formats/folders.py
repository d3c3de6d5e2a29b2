"""Two folders, w/ for winners and l/ for losers: files of one name are a pair, and NAME.txt beside the winner is its prompt."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from d3po.errors import FormatError, StorageError
from d3po.preferences.formats.base import AbstractFormat, PictureFiles, Reading, Written, left_out, spill, suffix_of
from d3po.preferences.formats.images import SUFFIXES
from d3po.preferences.formats.neutral import ImportedAnswer, ImportedJudgement, ImportedPicture, Item, pairs_of
from d3po.preferences.formats.parsing import open_text


class Folders(AbstractFormat):
    """Wins of pairs; nothing of annotators."""

    name: ClassVar[str] = "folders"
    summary: ClassVar[str] = "w/NAME.png beats l/NAME.png; the prompt is in w/NAME.txt"

    def read(self, reading: Reading) -> Iterator[Item]:
        winners, losers = (_pictures(reading.source / side) for side in ("w", "l"))
        alone = sorted(winners.keys() ^ losers.keys())
        if alone:
            raise FormatError(
                f"{reading.source}: {len(alone)} pictures are in one of w/ and l/ only, such as {alone[0]}; each needs a partner of its name"
            )
        files = PictureFiles(reading.source)
        for name in sorted(winners):
            yield from _pair(winners[name], losers[name], files, reading)

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


def _pair(winner: Path, loser: Path, files: PictureFiles, reading: Reading) -> Iterator[Item]:
    caption = winner.with_suffix(".txt")
    prompt = ""
    if caption.exists():
        with open_text(caption, newline="") as file:
            prompt = file.read().removesuffix("\n")
    best, new = files.read(str(winner.relative_to(reading.source)), prompt, str(winner))
    worst, more = files.read(str(loser.relative_to(reading.source)), prompt, str(loser))
    if best == worst:
        raise FormatError(f"{winner} and {loser} are the same picture")
    yield from (*new, *more)
    yield ImportedJudgement(
        prompt=prompt,
        kind="pair",
        pictures=(best, worst),
        answer=ImportedAnswer(outcome="win", winner=best),
        annotator=reading.annotator,
    )


def _pictures(folder: Path) -> dict[str, Path]:
    """By name without its ending."""
    if not folder.is_dir():
        raise FormatError(f"{folder} is no folder; the format folders needs w/ and l/")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
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
