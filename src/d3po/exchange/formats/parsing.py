"""Reading text files, with messages that name file, line and field. JSON is read one record at a time, and a bad record does not affect the others."""

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
"""Characters read at a time."""

PROMPT_NAMES = ("prompt", "text", "caption", "instruction")
"""Names of the field with the prompt; the first that a record has is used."""

TRUTHS = {"true": True, "yes": True, "1": True, "1.0": True, "false": False, "no": False, "0": False, "0.0": False}
NO_TEXT = re.compile("[\ud800-\udfff\0]")
"""Half a surrogate pair or NUL, which cannot be stored. Bytes that are not UTF-8 are read as half pairs, from U+DC80 on."""
ESCAPED_NO_TEXT = re.compile(r"\\u(?:[dD][89a-fA-F]|0000)")
LIST_OR_SPREAD_OBJECT = re.compile(r"\s*(?:\[|\{[ \t]*\n)")
"""The beginning of a JSON file that does not have one record in each line."""


class Field:
    """One JSON object of a file, whose fields are read with error messages that say where they are.

    Raises:
        FormatError: the value is not an object.
    """

    def __init__(self, values: object, where: str) -> None:
        if not isinstance(values, dict):
            raise FormatError(f"{where}: expected an object with fields, found {_kind(values)}")
        self.values: dict[str, Any] = values
        self.where = where

    def place(self, name: str) -> str:
        """The place of a field, for messages."""
        return f"{self.where}, field {name}"

    def text(self, name: str, default: str | None = None) -> str:
        """The text in a field.

        Raises:
            FormatError: it is not text.
        """
        value = self.values.get(name, default)
        if not isinstance(value, str):
            raise self.wrong(name, "text")
        return value

    def prompt(self, name: str | None = None) -> str:
        """The prompt, normalised, in the field of that name, or in the first field of `PROMPT_NAMES` that exists; empty if there is none."""
        name = name or next((each for each in PROMPT_NAMES if each in self.values), None)
        return "" if name is None else prompt_of(self.text(name), self.place(name), FormatError)

    def number(self, name: str) -> float:
        """The finite number in a field.

        Raises:
            FormatError: it is not a finite number; a boolean is not one.
        """
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300 or not isfinite(value):
            raise self.wrong(name, "a number")
        return float(value)

    def truth(self, name: str, default: bool) -> bool:
        """The truth value in a field, in any usual form: true, 1, "yes", "False"; `default` if it is missing or null.

        Raises:
            FormatError: it is not a truth value.
        """
        value = self.values.get(name)
        if value is None:
            return default
        said = TRUTHS.get(str(value).strip().lower())
        if said is None:
            raise self.wrong(name, "true or false")
        return said

    def within(self, name: str) -> "Field":
        """The object in a field.

        Raises:
            FormatError: it is not an object.
        """
        if name not in self.values:
            raise self.wrong(name, "an object")
        return Field(self.values[name], self.place(name))

    def items(self, name: str) -> list[Any]:
        """The list in a field.

        Raises:
            FormatError: it is not a list.
        """
        value = self.values.get(name)
        if not isinstance(value, list):
            raise self.wrong(name, "a list")
        return value

    def wrong(self, name: str, wanted: str) -> FormatError:
        """Make the error about a field that does not contain what is wanted."""
        found = _kind(self.values[name]) if name in self.values else "nothing"
        return FormatError(f"{self.place(name)}: expected {wanted}, found {found}")


@dataclass(frozen=True, kw_only=True)
class Element:
    """One record of a file, which is checked only when it is read, so that a bad one can be left out."""

    where: str
    parsed: Callable[[], Any]
    """Returns the record's value.

    Raises:
        FormatError: it is not JSON, or contains text that cannot be stored.
    """

    def field(self) -> Field:
        """The record as an object.

        Raises:
            FormatError: it is not a JSON object, or contains text that cannot be stored.
        """
        return Field(self.parsed(), self.where)


def json_lines(source: Path) -> Iterator[Element]:
    """Yield the records of a JSONL file; empty lines are skipped. A file with one array, or with objects that extend over several lines, is read too.

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
    """Parse a JSON value. NaN and Infinity are not JSON.

    Raises:
        FormatError: it is not JSON, or contains text that cannot be stored.
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
    """Yield the elements of a JSON file that contains one array of objects or arrays, or one object, or several one after the other.

    The file is read in parts, as elements are needed.

    Raises:
        FormatError: the file contains something else, or cannot be read.
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
    """A text file of which only the part that is being parsed is in memory."""

    def __init__(self, file: io.TextIOWrapper, source: Path) -> None:
        self._file, self._source = file, source
        self._text = ""
        self.line = 1

    def peek(self) -> str:
        """The next character that is not white space; empty at the end of the file."""
        while True:
            stripped = self._text.lstrip()
            self._drop(len(self._text) - len(stripped))
            if self._text or not self._more(CHUNK):
                return self._text[:1]

    def take(self) -> str:
        """Consume the next character that is not white space, and return it; empty at the end of the file."""
        mark = self.peek()
        self._drop(len(mark))
        return mark

    def value(self, decoder: json.JSONDecoder, where: str) -> tuple[Any, str]:
        """Consume the object or array that begins here, and return its value and its text.

        Raises:
            FormatError: it is not JSON.
        """
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
    """Open a text file in the encoding of its byte order mark, or in UTF-8. Bytes that are not text are found later, by `refuse_broken_text`.

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
    """Refuse a text that cannot be stored.

    Raises:
        FormatError: it contains half a surrogate pair, NUL, or a byte that was not text.
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
    """Return a parsed value if all text in it can be stored. `text` is what it was parsed from, or empty if that is known to be harmless.

    Raises:
        FormatError: some text in it cannot be stored.
    """
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
