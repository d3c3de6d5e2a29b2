"""Escapes untrusted text for Markdown, for the cells of a spreadsheet and for a terminal."""

import html
import re

UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line and paragraph separators, bidirectional marks, halves of surrogate pairs."""
PUNCTUATION = re.compile(r"([!-%(-+\-.:=@[-`{-~])")
"""ASCII punctuation that has a meaning in Markdown or its usual extensions, except for HTML. Markdown allows a backslash before any of it."""
FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""The beginning of a cell that a spreadsheet would run as a formula, or that is already escaped. The last four characters are full-width signs."""


def markdown_text(text: str) -> str:
    """Escape a text so that Markdown shows it as it is, on one line: no markup, no HTML, no link."""
    return html.escape(re.sub(PUNCTUATION, r"\\\1", _one_line(text)), quote=False)


def markdown_code(text: str) -> str:
    """Write a text as a Markdown code span on one line. The text may contain backticks.

    Source: CommonMark 0.31, section 6.1.
    """
    plain = _one_line(text) or " "
    fence = _fence(plain, 1)
    pad = " " if plain[0] in "` " or plain[-1] in "` " else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def markdown_block(text: str, language: str) -> str:
    """Write a text of several lines as a fenced Markdown code block."""
    fence = _fence(text, 3)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def spreadsheet_cell(text: str) -> str:
    """Escape a cell so that spreadsheets show it as text: one that they would run as a formula gets an apostrophe before it.

    Source: OWASP, CSV injection.
    """
    return f"'{text}" if FORMULA.match(text) else text


def from_spreadsheet_cell(cell: str) -> str:
    """Undo `spreadsheet_cell`."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def terminal_line(text: str) -> str:
    """Escape a text for one line of a terminal: control characters and halves of surrogate pairs are written as escape sequences."""
    return re.sub(UNSEEN, lambda found: ascii(found[0])[1:-1], " ".join(text.splitlines()))


def _one_line(text: str) -> str:
    return " ".join(re.sub(UNSEEN, " ", text).split())


def _fence(text: str, least: int) -> str:
    """A fence of at least `least` backticks that is longer than any run of backticks in the text."""
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))
