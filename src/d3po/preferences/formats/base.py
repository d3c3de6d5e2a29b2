"""What all formats share: streams in and out, pictures beside files, and files that appear whole."""

import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from d3po.errors import FormatError, StorageError
from d3po.preferences.formats.images import read_picture
from d3po.preferences.formats.neutral import ImportedJudgement, ImportedPicture, Item, picture_of

IMPORTER = "import"
"""Handle of the annotator where a format names none."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How to read a source."""

    source: Path
    images: Path
    """The folder that picture paths are relative to, and must not lead out of."""
    annotator: str = IMPORTER
    """Handle for judgements whose annotator the format does not name."""


@dataclass(kw_only=True)
class Written:
    """What a file took, and what it could not hold."""

    judgements: int = 0
    pictures: int = 0
    left_out: Counter[str] = field(default_factory=Counter[str])
    """By what was left out, such as `tie`."""


class AbstractFormat(ABC):
    """A way to keep votes and pictures in files."""

    name: ClassVar[str]
    summary: ClassVar[str]

    @abstractmethod
    def read(self, reading: Reading) -> Iterator[Item]:
        """Everything in the source, one item at a time.

        Raises:
            FormatError: the source is not what the format asks for; the message names file, line and field.
        """

    @abstractmethod
    def write(self, items: Iterable[Item], target: Path) -> Written:
        """Write what the format can hold; the rest is counted.

        Raises:
            StorageError: the disk is full or not writable.
        """

    def count(self, source: Path) -> int | None:  # noqa: ARG002 each format counts its own way, or not
        """How many records the source has, for a progress bar; None where that takes as long as reading."""
        return None


class PictureFiles:
    """Reads each picture file once, and tells each picture once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._ids: dict[tuple[str, str], str] = {}

    def read(self, name: object, prompt: str, where: str) -> tuple[str, list[ImportedPicture]]:
        """The id of the picture in a file, and the picture itself if it was not read before."""
        key = (str(name), prompt)
        if key in self._ids:
            return self._ids[key], []
        picture = picture_of(read_picture(self._root, name, where), prompt)
        self._ids[key] = picture.id
        return picture.id, [picture]


@contextmanager
def whole_file(path: Path) -> Generator[Path, None, None]:
    """A path to write to; what is there when the block ends without an error appears under `path`.

    Raises:
        StorageError: the disk is full or not writable.
    """
    temporary = path.with_name(f".{path.name}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}; free some space or mend the permissions") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_picture(folder: Path, picture: ImportedPicture) -> str | None:
    """Write a picture's file under the hash of its bytes; its name, or None if the bytes are not known."""
    if picture.content is None:
        return None
    name = f"{picture.sha256}{suffix_of(picture.content)}"
    if not (folder / name).exists():
        with whole_file(folder / name) as temporary:
            temporary.write_bytes(picture.content)
    return name


class PictureFolder:
    """Pictures written beside a file that names them by their paths."""

    def __init__(self, target: Path) -> None:
        self._folder = target.with_name(f"{target.stem}-pictures")
        self._names: dict[tuple[str, str], str | None] = {}

    def keep(self, picture: ImportedPicture) -> None:
        """Write a picture's file, if its bytes are known."""
        self._names[picture.prompt, picture.id] = write_picture(self._folder, picture)

    def find(self, prompt: str, picture: str) -> str | None:
        """The path relative to the file, if there is one."""
        name = self._names.get((prompt, picture))
        return None if name is None else f"{self._folder.name}/{name}"

    def path(self, prompt: str, picture: str) -> str:
        """The path relative to the file.

        Raises:
            FormatError: the picture did not come before, or without its bytes.
        """
        found = self.find(prompt, picture)
        if found is None:
            raise FormatError(f"picture {picture[:20]} of {prompt[:60]!r} is known by its hash alone; this format needs its bytes")
        return found


class Spill:
    """Pictures kept on disk until the judgements that name them are written, so that memory does not grow with the data set."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[tuple[str, str], ImportedPicture] = {}

    def keep(self, picture: ImportedPicture) -> None:
        """Remember a picture."""
        self._known[picture.prompt, picture.id] = replace(picture, content=None)
        if picture.content is not None:
            (self._folder / picture.sha256).write_bytes(picture.content)

    def about(self, prompt: str, picture: str) -> ImportedPicture:
        """What is known of a picture but its bytes.

        Raises:
            FormatError: no such picture came before.
        """
        try:
            return self._known[prompt, picture]
        except KeyError as error:
            raise FormatError(f"a judgement names picture {picture[:20]}, which did not come before it") from error

    def content(self, prompt: str, picture: str) -> bytes:
        """Its bytes.

        Raises:
            FormatError: the picture did not come before, or without its bytes.
        """
        path = self._folder / self.about(prompt, picture).sha256
        if not path.exists():
            raise FormatError(f"picture {picture[:20]} of {prompt[:60]!r} is known by its hash alone; this format needs its bytes")
        return path.read_bytes()


@contextmanager
def spill() -> Generator[Spill, None, None]:
    """A `Spill` that is gone after the block."""
    with TemporaryDirectory(prefix="d3po-") as folder:
        yield Spill(Path(folder))


def write_json_array(target: Path, values: Iterable[object]) -> None:
    """Write a JSON array, one element a line.

    Raises:
        StorageError: the disk is full or not writable.
    """
    with whole_file(target) as temporary, temporary.open("w", encoding="utf-8") as file:
        for number, value in enumerate(values):
            file.write("[\n" if number == 0 else ",\n")
            file.write(json.dumps(value, ensure_ascii=False))
        file.write("\n]\n" if file.tell() else "[]\n")


def count_lines(source: Path) -> int | None:
    """How many lines a file has; None if it cannot be read."""
    try:
        with source.open("rb") as file:
            return sum(1 for line in file if line.strip())
    except OSError:
        return None


def left_out(written: Written, judgement: ImportedJudgement) -> None:
    """Count a judgement that a format cannot hold."""
    written.left_out["withdrawal" if judgement.answer is None else judgement.answer.outcome.replace("_", " ")] += 1


def say_left_out(left: Mapping[str, int]) -> str:
    """`3 tie, 1 skip`."""
    return ", ".join(f"{count} {what}" for what, count in sorted(left.items()))


def suffix_of(content: bytes) -> str:
    """The usual ending of a picture's file name."""
    if content.startswith(b"\x89PNG"):
        return ".png"
    return ".webp" if content[:4] == b"RIFF" else ".jpg"
