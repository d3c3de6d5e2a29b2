"""Text from anywhere: a file's bytes made text, its lines, a prompt as it is kept, and which prompts count as one.

Files of other programs begin with byte order marks, end lines in three ways and are not always UTF-8. Whatever people wrote is read here.
"""

import codecs
import re
import unicodedata
from pathlib import Path

from d3po.errors import UserError

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""By which encoding a file that begins so is read; UTF-32's first, of which UTF-16's is a beginning."""
MARK = "\ufeff"
"""The byte order mark as a character; files put together of several have it in their midst."""
LINE_END = re.compile(r"\r\n|\r|\n")
"""Nothing else ends a line: U+2028, U+0085 and the form feed come from word processors and stand within prompts."""
UNSEEN = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]")
"""What a reader does not see: soft hyphens, joiners, marks of direction, variation selectors, byte order marks."""


def encoding_of(head: bytes) -> str:
    """The encoding of a file that begins with these bytes (four are enough): by its byte order mark, or UTF-8."""
    return next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if head.startswith(mark)), "utf-8")


def decode(content: bytes, where: str, error: type[UserError]) -> str:
    """The text of a whole file, without its byte order mark.

    An encoding that nothing declares is not guessed: a wrong guess makes other words of the text, and nobody sees it.

    Raises:
        UserError: of the class `error`; it is not text in UTF-8, nor in UTF-16 or UTF-32 with a byte order mark. `where` says in the
            message which file.
    """
    encoding = encoding_of(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as wrong:
        at = wrong.start
        line = len(LINE_END.split(content[:at].decode("latin-1"))) if encoding.startswith("utf-8") else None
        raise error(
            f"{where}{f', line {line}' if line else ''}: byte {at} (0x{content[at]:02X}) is not {encoding.removesuffix('-sig').upper()} text; "
            "save the file as UTF-8 (if an older Windows program wrote it: `iconv -f CP1252 -t UTF-8`)"
        ) from wrong
    if "\0" in text:
        line = len(lines(text[: text.index("\0") + 1]))
        raise error(
            f"{where}, line {line}: a NUL character, which text has none of; is it UTF-16 without a byte order mark? save it as UTF-8"
        )
    return text.lstrip(MARK)


def read_text(path: Path, error: type[UserError]) -> str:
    """The text of a file; see `decode`.

    Raises:
        UserError: of the class `error`; the file cannot be read, or is not text.
    """
    try:
        content = path.read_bytes()
    except OSError as wrong:
        raise error(f"{path} cannot be read: {wrong.strerror}") from wrong
    return decode(content, str(path), error)


def lines(text: str) -> list[str]:
    r"""The lines of a text, ended by \n, \r\n or \r; after the last end there is no line."""
    parts = LINE_END.split(text)
    return parts if parts[-1] else parts[:-1]


def prompt_of(text: str, where: str, error: type[UserError]) -> str:
    r"""A prompt as it is kept: nothing unseen at its ends, lines within it ended by \n.

    Raises:
        UserError: of the class `error`; it holds a control character or half a surrogate pair, which no database and no file could keep.
            `where` says in the message whose prompt it is.
    """
    prompt = LINE_END.sub("\n", text)
    while (trimmed := prompt.strip().strip(MARK)) != prompt:
        prompt = trimmed
    if found := flaw(prompt):
        raise error(f"{where}: the prompt holds {found}; remove it")
    return prompt


def flaw(text: str) -> str | None:
    """What no database and no file could keep of a text, in words: a control character or half a surrogate pair. None if all can be kept."""
    for character in text:
        kind = unicodedata.category(character)
        if kind == "Cs" or (kind == "Cc" and not character.isspace()):
            return f"U+{ord(character):04X}, {'half a surrogate pair' if kind == 'Cs' else 'a control character'}"
    return None


def fold(prompt: str) -> str:
    """What prompts that count as one have in common: they look alike but for case, white space and the form of their Unicode characters.

    Text encoders make the same of most of them, so that who trains on one trains on all. Folding twice changes nothing.
    Source: toNFKC_Casefold, Unicode Standard, section 3.13; and white space made one space.
    """
    plain = unicodedata.normalize("NFKC", UNSEEN.sub("", unicodedata.normalize("NFD", prompt).casefold()))
    return " ".join(UNSEEN.sub("", unicodedata.normalize("NFKC", plain.casefold())).split())
