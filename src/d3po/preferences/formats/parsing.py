"""Reading text files so that every message can say where: file, line and field. JSON comes a record at a time."""

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from d3po.errors import FormatError

CHUNK = 1 << 16
"""Characters read at once."""


class Field:
    """One object of a file, whose fields are read with messages that say where they are."""

    def __init__(self, values: object, where: str) -> None:
        if not isinstance(values, dict):
            raise FormatError(f"{where}: expected an object with fields, found {_kind(values)}")
        self.values: dict[str, Any] = values
        self.where = where

    def place(self, name: str) -> str:
        """Where a field is, for messages."""
        return f"{self.where}, field {name}"

    def text(self, name: str, default: str | None = None) -> str:
        """A text field."""
        value = self.values.get(name, default)
        if not isinstance(value, str):
            raise self.wrong(name, "text")
        return value

    def number(self, name: str) -> float:
        """A number; a boolean is none."""
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(name, "a number")
        return float(value)

    def within(self, name: str) -> "Field":
        """An object in the object."""
        if name not in self.values:
            raise self.wrong(name, "an object")
        return Field(self.values[name], self.place(name))

    def items(self, name: str) -> list[Any]:
        """A list."""
        value = self.values.get(name)
        if not isinstance(value, list):
            raise self.wrong(name, "a list")
        return value

    def wrong(self, name: str, wanted: str) -> FormatError:
        """The error to raise of a field."""
        found = _kind(self.values[name]) if name in self.values else "nothing"
        return FormatError(f"{self.place(name)}: expected {wanted}, found {found}")


def json_lines(source: Path) -> Iterator[Field]:
    """The objects of a JSONL file; empty lines are passed over.

    Raises:
        FormatError: a line is not a JSON object.
    """
    with open_text(source) as file:
        for number, line in enumerate(_decoded(file, source), 1):
            if line.strip():
                yield Field(parse_json(line, f"{source}, line {number}"), f"{source}, line {number}")


def parse_json(text: str, where: str) -> Any:
    """A JSON value; NaN and Infinity are none.

    Raises:
        FormatError: it is not JSON.
    """

    def refuse(name: str) -> Any:
        raise FormatError(f"{where}: {name} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (json.JSONDecodeError, RecursionError) as error:
        raise FormatError(f"{where}: not JSON: {error}") from error


def json_array(source: Path) -> Iterator[tuple[str, Any]]:
    """The elements of a JSON file that holds one array of objects or arrays, each with its place, read as they are needed.

    Raises:
        FormatError: it holds something else.
    """
    decoder = json.JSONDecoder()
    with open_text(source) as file:
        buffer = _Buffer(file, source)
        if buffer.take() != "[":
            raise FormatError(f"{source}, line 1: expected a JSON array, which begins with [")
        while (mark := buffer.peek()) != "]":
            if mark not in ("{", "["):
                raise FormatError(
                    f"{source}, line {buffer.line}: expected an object, a list or the end of the array, found {mark or 'the end'!r}"
                )
            where = f"{source}, line {buffer.line}"
            yield where, buffer.value(decoder, where)
            if buffer.peek() == ",":
                buffer.take()


class _Buffer:
    """A text file of which only what is being parsed is in memory."""

    def __init__(self, file: Any, source: Path) -> None:
        self._file, self._source = file, source
        self._text = ""
        self.line = 1

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            stripped = self._text.lstrip()
            self._drop(len(self._text) - len(stripped))
            if self._text or not self._more(CHUNK):
                return self._text[:1]

    def take(self) -> str:
        """The same, and go past it."""
        mark = self.peek()
        self._drop(len(mark))
        return mark

    def value(self, decoder: json.JSONDecoder, where: str) -> Any:
        """The object or array that begins here."""
        while True:
            try:
                value, end = decoder.raw_decode(self._text)
            except (json.JSONDecodeError, RecursionError) as error:
                if isinstance(error, RecursionError) or not self._more(max(CHUNK, len(self._text))):
                    raise FormatError(f"{where}: not JSON: {error}") from error
            else:
                self._drop(end)
                return value

    def _more(self, size: int) -> bool:
        try:
            chunk = self._file.read(size)
        except UnicodeDecodeError as error:
            raise FormatError(f"{self._source}: not UTF-8 text ({error.reason})") from error
        self._text += chunk
        return bool(chunk)

    def _drop(self, count: int) -> None:
        self.line += self._text.count("\n", 0, count)
        self._text = self._text[count:]


@contextmanager
def open_text(path: Path, *, newline: str | None = None) -> Generator[Any, None, None]:
    """A text file in UTF-8, with or without a byte order mark.

    Raises:
        FormatError: it cannot be opened.
    """
    try:
        file = path.open(encoding="utf-8-sig", newline=newline)
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror}") from error
    with file:
        yield file


def _decoded(file: Any, source: Path) -> Iterator[str]:
    try:
        yield from file
    except UnicodeDecodeError as error:
        raise FormatError(f"{source}: not UTF-8 text ({error.reason} at byte {error.start} of a block)") from error


def _kind(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
