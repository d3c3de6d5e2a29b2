"""What all formats share: streams in and out, pictures beside files, and files that appear whole."""

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
"""Handle of the annotator where a format names none."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How to read a source."""

    source: Path
    images: Path
    """The folder that picture paths are relative to, and must not lead out of."""
    annotator: str = IMPORTER
    """Handle for judgements whose annotator the format does not name."""
    question: str | None = None
    """The question whose answers are read, where a format's records answer several; by default those the format itself writes."""
    passed_over: Counter[str] = field(default_factory=Counter[str])
    """What was found and not read, or read as nothing; filled while reading."""


@dataclass(kw_only=True)
class Written:
    """What a file took, and what it could not hold."""

    judgements: int = 0
    pictures: int = 0
    left_out: Counter[str] = field(default_factory=Counter[str])
    """By what was left out, such as `tie`."""


Record = Callable[[], Iterable[ImportedJudgement]]
"""One record of a source, read when called.

Raises:
    FormatError: it is not what the format asks for.
"""


class AbstractFormat(ABC):
    """A way to keep votes and pictures in files."""

    name: ClassVar[str]
    summary: ClassVar[str]
    expects: ClassVar[str]
    """What its records are looked through for, to say where nothing was found."""
    has_questions: ClassVar[bool] = False
    """Whether a record answers several questions, of which one may be chosen."""

    def read(self, reading: Reading) -> Iterator[Item | BadRecord]:
        """Everything in the source, one item at a time, each picture before the first judgement that names it. Bad records are told as such.

        Raises:
            FormatError: the source as a whole is not what the format asks for; the message names file, line and field.
        """
        pictures = PictureFiles(reading.images)
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
    def records(self, reading: Reading, pictures: "PictureFiles") -> Iterator[Record]:
        """The source's records, one at a time. Each gives the judgements in it, and has told `pictures` what they name.

        Raises:
            FormatError: the source as a whole is not what the format asks for.
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
    """The pictures that a source's records name. Each file is read once, and those of a record are told once it proved sound."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._ids: dict[tuple[str, str], str] = {}
        """By name and prompt."""
        self._originals: dict[Path, str] = {}
        """By file that was found by its name before an upload, the address it was found for."""
        self._new: list[tuple[tuple[str, str] | None, ImportedPicture]] = []

    def read(self, name: object, prompt: str, where: str) -> str:
        """The id of the picture of that path or address, or in that data URI.

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
        """The bytes of the file of that path or address.

        Raises:
            FormatError: it cannot be found or read.
        """
        found = locate(self._root, name, where)
        self._refuse_second_original(found, str(name), where)
        return read_regular(found.path, where)

    def add(self, picture: ImportedPicture) -> str:
        """Tell a picture whose bytes are known; its id."""
        self._new.append((None, picture))
        return picture.id

    def told(self) -> list[ImportedPicture]:
        """The pictures of a sound record that were not told before."""
        new, self._new = self._new, []
        return [picture for _, picture in new]

    def forget(self) -> None:
        """Untell the pictures of a bad record."""
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
        with open_regular(source, str(source)) as file:
            return sum(1 for line in file if line.strip())
    except (FormatError, OSError):
        return None


def listed(folder: Path) -> list[Path]:
    """What is in a folder, in the order of the names.

    Raises:
        FormatError: it cannot be read.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise FormatError(f"{folder}: cannot read the folder: {error.strerror}") from error


def note_missing_prompt(record: Field, reading: Reading) -> None:
    """Count a record that has no prompt by any name, and so gets an empty one."""
    if not any(name in record.values for name in PROMPT_NAMES):
        found = ", ".join(sorted(record.values))[:100]
        reading.passed_over[f"records have no {' or '.join(PROMPT_NAMES)}, so that their prompt is empty (found {found})"] += 1


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
