"""Reading text files so that every message can say where: file, line and field. JSON comes a record at a time, and a bad one spoils no other."""

import io
import json
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from d3po.errors import FormatError
from d3po.inputs import open_regular
from d3po.text import encoding_of, prompt_of

CHUNK = 1 << 16
"""Characters read at once."""

PROMPT_NAMES = ("prompt", "text", "caption", "instruction")
"""What records call their prompt; the first of them that a record has."""

TRUTHS = {"true": True, "yes": True, "1": True, "1.0": True, "false": False, "no": False, "0": False, "0.0": False}
NO_TEXT = re.compile("[\ud800-\udfff\0]")
"""Half a surrogate pair, which no file and no database can keep, or NUL. A byte that is not UTF-8 is read as the half pair U+DC80 and so on."""
ESCAPED_NO_TEXT = re.compile(r"\\u(?:[dD][89a-fA-F]|0000)")
LIST_OR_SPREAD_OBJECT = re.compile(r"\s*(?:\[|\{[ \t]*\n)")
"""How a JSON file begins that has no record a line."""


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

    def prompt(self, name: str | None = None) -> str:
        """The prompt as it is kept: of that name, or of the first of `PROMPT_NAMES` that is there; empty if there is none."""
        name = name or next((each for each in PROMPT_NAMES if each in self.values), None)
        return "" if name is None else prompt_of(self.text(name), self.place(name), FormatError)

    def number(self, name: str) -> float:
        """A finite number; a boolean is none."""
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300 or not isfinite(value):
            raise self.wrong(name, "a number")
        return float(value)

    def truth(self, name: str, default: bool) -> bool:
        """Whether something is so, as people write it: true, 1, "yes", "False"; what is missing or null is the default."""
        value = self.values.get(name)
        if value is None:
            return default
        said = TRUTHS.get(str(value).strip().lower())
        if said is None:
            raise self.wrong(name, "true or false")
        return said

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


@dataclass(frozen=True, kw_only=True)
class Element:
    """One record of a file, not looked at before it is asked for, so that a bad one can be left out."""

    where: str
    parsed: Callable[[], Any]
    """Its value.

    Raises:
        FormatError: it is not JSON, or has a text that is none.
    """

    def field(self) -> Field:
        """The record as an object; raises `FormatError` where it is none."""
        return Field(self.parsed(), self.where)


def json_lines(source: Path) -> Iterator[Element]:
    """The records of a JSONL file; empty lines are passed over. A file that holds one array, or objects spread over lines, is read as such.

    Raises:
        FormatError: the file cannot be read.
    """
    with open_text(source) as file:
        head = _read(file, CHUNK, source)
    if LIST_OR_SPREAD_OBJECT.match(head):
        yield from json_array(source)
        return
    with open_text(source) as file:
        for number, line in enumerate(_lines(file, source), 1):
            if line.strip():
                where = f"{source}, line {number}"
                yield Element(where=where, parsed=lambda line=line, where=where: parse_json(line, where))


def parse_json(text: str, where: str) -> Any:
    """A JSON value; NaN and Infinity are none.

    Raises:
        FormatError: it is not JSON, or has a text that is none.
    """

    def refuse(name: str) -> Any:
        raise FormatError(f"{where}: {name} is not JSON")

    refuse_broken_text(text, where)
    try:
        value = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: not JSON: {error}") from error
    return _checked(value, text, where)


def json_array(source: Path) -> Iterator[Element]:
    """The elements of a JSON file that holds one array of objects or arrays, or one object, or several one after the other.

    They are read as they are needed.

    Raises:
        FormatError: it holds something else.
    """
    decoder = json.JSONDecoder()
    with open_text(source) as file:
        buffer = _Buffer(file, source)
        if buffer.peek() not in ("[", "{"):
            raise FormatError(f"{source}, line 1: expected a JSON array, which begins with [, or an object, which begins with {{")
        end = ""
        if buffer.peek() == "[":
            buffer.take()
            end = "]"
        while (mark := buffer.peek()) != end:
            if mark not in ("{", "["):
                raise FormatError(
                    f"{source}, line {buffer.line}: expected an object, a list or the end of the array, found {mark or 'the end'!r}"
                )
            where = f"{source}, line {buffer.line}"
            value, text = buffer.value(decoder, where)
            suspicious = text if NO_TEXT.search(text) or ESCAPED_NO_TEXT.search(text) else ""
            yield Element(where=where, parsed=lambda value=value, text=suspicious, where=where: _checked(value, text, where))
            if buffer.peek() == ",":
                buffer.take()


class _Buffer:
    """A text file of which only what is being parsed is in memory."""

    def __init__(self, file: io.TextIOWrapper, source: Path) -> None:
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

    def value(self, decoder: json.JSONDecoder, where: str) -> tuple[Any, str]:
        """The object or array that begins here, and its text."""
        while True:
            try:
                value, end = decoder.raw_decode(self._text)
            except (ValueError, RecursionError) as error:
                if not isinstance(error, json.JSONDecodeError) or not self._more(max(CHUNK, len(self._text))):
                    raise FormatError(f"{where}: not JSON: {error}") from error
            else:
                text = self._text[:end]
                self._drop(end)
                return value, text

    def _more(self, size: int) -> bool:
        chunk = _read(self._file, size, self._source)
        self._text += chunk
        return bool(chunk)

    def _drop(self, count: int) -> None:
        self.line += self._text.count("\n", 0, count)
        self._text = self._text[count:]


@contextmanager
def open_text(path: Path, *, newline: str | None = None) -> Generator[io.TextIOWrapper, None, None]:
    """A text file, in the encoding that its byte order mark says, or UTF-8. What is not text in it is found by `refuse_broken_text`.

    Raises:
        FormatError: it cannot be opened.
    """
    file = open_regular(path, str(path))
    with file:
        encoding = encoding_of(file.read(4))
        file.seek(0)
        with io.TextIOWrapper(file, encoding=encoding, errors="surrogateescape", newline=newline) as text:
            yield text


def refuse_broken_text(text: str, where: str) -> None:
    """Raise if a text holds what no file and no database can keep.

    Raises:
        FormatError: it holds half a surrogate pair, NUL, or a byte that was not text.
    """
    found = NO_TEXT.search(text)
    if found is None:
        return
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:
        raise FormatError(
            f"{where}: byte 0x{code - 0xDC00:02X} is not UTF-8 text; "
            "save the file as UTF-8 (if an older Windows program wrote it: `iconv -f CP1252 -t UTF-8`)"
        )
    raise FormatError(f"{where}: U+{code:04X} is {'NUL' if code == 0 else 'half a surrogate pair'}, which is no text; remove it")


def _checked(value: Any, text: str, where: str) -> Any:
    """The value, none of whose texts is broken; `text` is what it was parsed from, and empty where that is known to be harmless."""
    if NO_TEXT.search(text):
        refuse_broken_text(text, where)
    if ESCAPED_NO_TEXT.search(text):
        waiting: list[tuple[str, Any]] = [("", value)]
        while waiting:
            name, each = waiting.pop()
            if isinstance(each, str):
                refuse_broken_text(each, f"{where}, field {name}" if name else where)
            elif isinstance(each, dict):
                waiting += [(f"{name}.{key}" if name else str(key), inner) for key, inner in each.items()]
                waiting += [(f"{name or 'names'}", key) for key in each]
            elif isinstance(each, list):
                waiting += [(f"{name}[{place}]", inner) for place, inner in enumerate(each)]
    return value


def _read(file: io.TextIOWrapper, size: int, source: Path) -> str:
    try:
        return file.read(size)
    except (UnicodeDecodeError, OSError) as error:
        raise _unreadable(error, source) from error


def _lines(file: io.TextIOWrapper, source: Path) -> Iterator[str]:
    try:
        yield from file
    except (UnicodeDecodeError, OSError) as error:
        raise _unreadable(error, source) from error


def _unreadable(error: UnicodeDecodeError | OSError, source: Path) -> FormatError:
    if isinstance(error, OSError):
        return FormatError(f"cannot read {source}: {error.strerror}")
    return FormatError(f"{source}: not {error.encoding.upper()} text ({error.reason}); save the file as UTF-8")


def _kind(value: object) -> str:
    try:
        text = json.dumps(value, default=str, ensure_ascii=False)
    except (RecursionError, ValueError):
        text = f"a deeply nested {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
