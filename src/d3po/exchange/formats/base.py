"""The interface of file formats, and what they share: reading and writing pictures, and writing files whole or not at all."""

import base64
import binascii
import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from d3po.errors import FormatError, StorageError
from d3po.exchange.formats.addresses import LocatedFile, locate
from d3po.exchange.formats.neutral import BadRecord, ImportedJudgement, ImportedPicture, Item, picture_of
from d3po.exchange.formats.parsing import PROMPT_NAMES, Field
from d3po.inputs import open_regular, read_regular

IMPORTER = "import"
"""Handle of the annotator if a format names none."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How to read a source."""

    source: Path
    images: Path
    """The folder to which picture paths are relative, and which they must not leave."""
    annotator: str = IMPORTER
    """Handle for judgements whose annotator the format does not name."""
    question: str | None = None
    """The question whose answers are read, for formats whose records answer several; by default the questions that the format itself writes."""
    passed_over: Counter[str] = field(default_factory=Counter[str])
    """What was found and not read, with counts; filled while reading."""


@dataclass(kw_only=True)
class Written:
    """The result of writing a file, as counts."""

    judgements: int = 0
    pictures: int = 0
    left_out: Counter[str] = field(default_factory=Counter[str])
    """Judgements that the format cannot hold, by kind of answer, such as `tie`."""


Record = Callable[[], Iterable[ImportedJudgement]]
"""Reads one record of a source and returns its judgements.

Raises:
    FormatError: the record does not follow the format.
"""


class AbstractFormat(ABC):
    """The interface of a file format for votes and pictures."""

    name: ClassVar[str]
    summary: ClassVar[str]
    expects: ClassVar[str]
    """What the format reads, for the message about a source in which nothing was found."""
    has_questions: ClassVar[bool] = False
    """Whether a record may answer several questions, of which one can be chosen."""

    def read(self, reading: Reading) -> Iterator[Item | BadRecord]:
        """Yield everything in the source, each picture before the first judgement that names it, and a `BadRecord` for each record that cannot be read.

        Raises:
            FormatError: the source as a whole does not follow the format; the message names file, line and field.
        """
        pictures = NamedPictures(reading.images)
        for record in self.records(reading, pictures):
            try:
                judgements = list(record())
            except FormatError as error:
                pictures.forget()
                yield BadRecord(message=str(error))
            else:
                yield from pictures.told()
                yield from judgements

    @abstractmethod
    def records(self, reading: Reading, pictures: "NamedPictures") -> Iterator[Record]:
        """Yield the source's records, unread. Reading one adds its pictures to `pictures` and returns its judgements.

        Raises:
            FormatError: the source as a whole does not follow the format.
        """

    @abstractmethod
    def write(self, items: Iterable[Item], target: Path) -> Written:
        """Write the items that the format can hold, and count the others.

        Raises:
            StorageError: the disk is full or not writable.
        """

    def count(self, source: Path) -> int | None:  # noqa: ARG002 - for formats that can count
        """The number of records in the source, for a progress bar; None if counting takes as long as reading."""
        return None


class NamedPictures:
    """The pictures that a source's records name. Each file is read once. The pictures of a record are passed on once the whole record was read."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._ids: dict[tuple[str, str], str] = {}
        """Picture id by name and prompt."""
        self._originals: dict[Path, str] = {}
        """For files found by their name before an upload: the address for which each was found."""
        self._new: list[tuple[tuple[str, str] | None, ImportedPicture]] = []
        """Pictures of the current record, with their keys in `_ids`."""

    def read(self, name: object, prompt: str, where: str) -> str:
        """Read the picture at a path or address, or in a data URI, and return its id.

        Raises:
            FormatError: it cannot be found or read.
        """
        if isinstance(name, str) and name.startswith("data:"):
            return self.add(picture_of(_embedded(name, where), prompt, where=where))
        key = (str(name), prompt)
        if key not in self._ids:
            picture = picture_of(self.bytes(name, where), prompt, where=where)
            self._ids[key] = picture.id
            self._new.append((key, picture))
        return self._ids[key]

    def bytes(self, name: object, where: str) -> bytes:
        """The bytes of the file at a path or address.

        Raises:
            FormatError: it cannot be found or read.
        """
        found = locate(self._root, name, where)
        self._refuse_second_original(found, str(name), where)
        return read_regular(found.path, where)

    def add(self, picture: ImportedPicture) -> str:
        """Add a picture to the current record, and return its id."""
        self._new.append((None, picture))
        return picture.id

    def told(self) -> list[ImportedPicture]:
        """Return the new pictures of a record that was read, and begin the next record."""
        new, self._new = self._new, []
        return [picture for _, picture in new]

    def forget(self) -> None:
        """Drop the pictures of a bad record, and begin the next record."""
        for key, _ in self._new:
            if key is not None:
                del self._ids[key]
        self._new = []

    def _refuse_second_original(self, found: LocatedFile, name: str, where: str) -> None:
        if found.original and self._originals.setdefault(found.path, name) != name:
            raise FormatError(
                f"{where}: {found.path.name} may be the file of {name[-200:]} or of {self._originals[found.path][-200:]}; "
                "take the files from Label Studio's media folder"
            )


def _embedded(uri: str, where: str) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma or not head.endswith(";base64"):
        raise FormatError(f"{where}: expected data:image/...;base64,..., found {uri[:60]!r}")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError(f"{where}: not base64: {error}") from error


@contextmanager
def whole_file(path: Path) -> Generator[Path, None, None]:
    """A temporary path to write to. Its file is renamed to `path` when the block ends without an error.

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
    """Write a picture to a file named by the hash of its bytes. Returns the file's name, or None if the bytes are not known."""
    if picture.content is None:
        return None
    name = f"{picture.sha256}{suffix_of(picture.content)}"
    if not (folder / name).exists():
        with whole_file(folder / name) as temporary:
            temporary.write_bytes(picture.content)
    return name


class PictureFolder:
    """A folder of pictures next to a file that names them by their paths."""

    def __init__(self, target: Path) -> None:
        self._folder = target.with_name(f"{target.stem}-pictures")
        self._names: dict[tuple[str, str], str | None] = {}

    def keep(self, picture: ImportedPicture) -> None:
        """Write a picture's file, if its bytes are known."""
        self._names[picture.prompt, picture.id] = write_picture(self._folder, picture)

    def find(self, prompt: str, picture: str) -> str | None:
        """The picture's path relative to the file; None if the picture was not written."""
        name = self._names.get((prompt, picture))
        return None if name is None else f"{self._folder.name}/{name}"

    def path(self, prompt: str, picture: str) -> str:
        """The picture's path relative to the file.

        Raises:
            FormatError: the picture did not come before, or without its bytes.
        """
        found = self.find(prompt, picture)
        if found is None:
            raise FormatError(f"picture {picture[:20]} of {prompt[:60]!r} is known by its hash alone; this format needs its bytes")
        return found


class Spill:
    """Pictures stored on disk until the judgements that name them are written, so that memory does not grow with the data set."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[tuple[str, str], ImportedPicture] = {}

    def keep(self, picture: ImportedPicture) -> None:
        """Store a picture."""
        self._known[picture.prompt, picture.id] = replace(picture, content=None)
        if picture.content is not None:
            (self._folder / picture.sha256).write_bytes(picture.content)

    def about(self, prompt: str, picture: str) -> ImportedPicture:
        """A picture without its bytes.

        Raises:
            FormatError: no such picture was stored.
        """
        try:
            return self._known[prompt, picture]
        except KeyError as error:
            raise FormatError(f"a judgement names picture {picture[:20]}, which did not come before it") from error

    def content(self, prompt: str, picture: str) -> bytes:
        """A picture's bytes.

        Raises:
            FormatError: the picture did not come before, or without its bytes.
        """
        path = self._folder / self.about(prompt, picture).sha256
        if not path.exists():
            raise FormatError(f"picture {picture[:20]} of {prompt[:60]!r} is known by its hash alone; this format needs its bytes")
        return path.read_bytes()


@contextmanager
def spill() -> Generator[Spill, None, None]:
    """Make a `Spill` in a temporary folder, which is deleted after the block."""
    with TemporaryDirectory(prefix="d3po-") as folder:
        yield Spill(Path(folder))


def write_json_array(target: Path, values: Iterable[object]) -> None:
    """Write a JSON array with one element in each line.

    Raises:
        StorageError: the disk is full or not writable.
    """
    with whole_file(target) as temporary, temporary.open("w", encoding="utf-8") as file:
        for number, value in enumerate(values):
            file.write("[\n" if number == 0 else ",\n")
            file.write(json.dumps(value, ensure_ascii=False))
        file.write("\n]\n" if file.tell() else "[]\n")


def count_lines(source: Path) -> int | None:
    """The number of lines of a file that are not empty; None if it cannot be read."""
    try:
        with open_regular(source, str(source)) as file:
            return sum(1 for line in file if line.strip())
    except (FormatError, OSError):
        return None


def listed(folder: Path) -> list[Path]:
    """The entries of a folder, ordered by name.

    Raises:
        FormatError: the folder cannot be read.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise FormatError(f"{folder}: cannot read the folder: {error.strerror}") from error


def note_missing_prompt(record: Field, reading: Reading) -> None:
    """Count a record without a prompt under any of its names, whose prompt is therefore empty."""
    if not any(name in record.values for name in PROMPT_NAMES):
        found = ", ".join(sorted(record.values))[:100]
        reading.passed_over[f"records have no {' or '.join(PROMPT_NAMES)}, so that their prompt is empty (found {found})"] += 1


def left_out(written: Written, judgement: ImportedJudgement) -> None:
    """Count a judgement that a format cannot hold."""
    written.left_out["withdrawal" if judgement.answer is None else judgement.answer.outcome.replace("_", " ")] += 1


def say_left_out(left: Mapping[str, int]) -> str:
    """The counts as text, such as `3 tie, 1 skip`."""
    return ", ".join(f"{count} {what}" for what, count in sorted(left.items()))


def suffix_of(content: bytes) -> str:
    """The suffix of a picture's file name, by its first bytes."""
    if content.startswith(b"\x89PNG"):
        return ".png"
    return ".webp" if content[:4] == b"RIFF" else ".jpg"
