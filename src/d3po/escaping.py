"""Text of others where a program would read more than text in it: Markdown, the cells of a spreadsheet, a terminal."""

import html
import re

UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, ends of lines and paragraphs, changes of direction, halves of surrogate pairs."""
PUNCTUATION = re.compile(r"([!-%(-+\-.:=@[-`{-~])")
"""What Markdown and its usual extensions read as more than itself, but for HTML; any punctuation may stand behind a backslash."""
FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""How a cell begins that a spreadsheet would run, or that was kept from it before; the last four are the full-width signs."""


def markdown_text(text: str) -> str:
    """A text on one line that Markdown shows as it is: no markup, no HTML, no link."""
    return html.escape(re.sub(PUNCTUATION, r"\\\1", _one_line(text)), quote=False)


def markdown_code(text: str) -> str:
    """A text on one line as a code span, whatever backticks it holds.

    Source: CommonMark 0.31, section 6.1.
    """
    plain = _one_line(text) or " "
    fence = _fence(plain, 1)
    pad = " " if plain[0] in "` " or plain[-1] in "` " else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def markdown_block(text: str, language: str) -> str:
    """A text of several lines as a code block."""
    fence = _fence(text, 3)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def spreadsheet_cell(text: str) -> str:
    """A cell that spreadsheets show as it is: one that they would run as a formula gets an apostrophe before it, which they take for "text".

    Source: OWASP, CSV injection.
    """
    return f"'{text}" if FORMULA.match(text) else text


def from_spreadsheet_cell(cell: str) -> str:
    """The text that `spreadsheet_cell` was given."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def terminal_line(text: str) -> str:
    """A text on one line that a terminal shows and does not obey: control characters and what could not be encoded are written as escapes."""
    return re.sub(UNSEEN, lambda found: ascii(found[0])[1:-1], " ".join(text.splitlines()))


def _one_line(text: str) -> str:
    return " ".join(re.sub(UNSEEN, " ", text).split())


def _fence(text: str, least: int) -> str:
    """More backticks than stand together anywhere in a text."""
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))
