"""Decodes text files, splits them into lines, normalises prompts, and says which prompts count as the same.

Files of other programs may begin with byte order marks, end lines in three ways, and are not always UTF-8. All text that people wrote is read here.
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
"""Byte order marks and the encodings they stand for. UTF-32 comes before UTF-16, because UTF-16's mark is the beginning of UTF-32's."""
MARK = "\ufeff"
"""The byte order mark as a character. Files that were concatenated contain it in the middle."""
LINE_END = re.compile(r"\r\n|\r|\n")
"""The line ends. U+2028, U+0085 and the form feed do not end a line: they come from word processors and occur within prompts."""
UNSEEN = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]")
"""Invisible characters: soft hyphens, joiners, bidirectional marks, variation selectors, byte order marks."""


def encoding_of(head: bytes) -> str:
    """The encoding of a file that begins with these bytes (four are enough): the one of its byte order mark, or UTF-8."""
    return next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if head.startswith(mark)), "utf-8")


def decode(content: bytes, where: str, error: type[UserError]) -> str:
    """Decode the content of a whole file, without its byte order mark.

    The encoding is never guessed, because a wrong guess would change the text without anybody noticing.

    Args:
        content: the file's bytes.
        where: the file's name, for messages.
        error: the class of the error to raise.

    Raises:
        UserError: of the class `error`; the content is not text in UTF-8, nor in UTF-16 or UTF-32 with a byte order mark.
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
    """Read the text of a file; see `decode`.

    Raises:
        UserError: of the class `error`; the file cannot be read, or is not text.
    """
    try:
        content = path.read_bytes()
    except OSError as wrong:
        raise error(f"{path} cannot be read: {wrong.strerror}") from wrong
    return decode(content, str(path), error)


def lines(text: str) -> list[str]:
    r"""Split a text into lines, which end with \n, \r\n or \r. A line end at the end of the text does not begin another line."""
    parts = LINE_END.split(text)
    return parts if parts[-1] else parts[:-1]


def prompt_of(text: str, where: str, error: type[UserError]) -> str:
    r"""Normalise a prompt for storage: strip white space and byte order marks, and end the lines within it with \n.

    Args:
        text: the prompt.
        where: where the prompt comes from, for messages.
        error: the class of the error to raise.

    Raises:
        UserError: of the class `error`; the prompt holds a control character or half a surrogate pair, which no database or file could store.
    """
    prompt = LINE_END.sub("\n", text)
    while (trimmed := prompt.strip().strip(MARK)) != prompt:
        prompt = trimmed
    if found := flaw(prompt):
        raise error(f"{where}: the prompt holds {found}; remove it")
    return prompt


def flaw(text: str) -> str | None:
    """Describe the first character of a text that no database or file could store: a control character or half a surrogate pair. None if all are fine."""
    for character in text:
        kind = unicodedata.category(character)
        if kind == "Cs" or (kind == "Cc" and not character.isspace()):
            return f"U+{ord(character):04X}, {'half a surrogate pair' if kind == 'Cs' else 'a control character'}"
    return None


def fold(prompt: str) -> str:
    """Fold a prompt to the form by which prompts are compared: those that differ only in case, white space or Unicode form count as the same.

    Text encoders map most such variants to the same tokens, so training on one of them is training on all. Folding twice changes nothing.
    Source: toNFKC_Casefold, Unicode Standard, section 3.13; in addition each run of white space becomes one space.
    """
    plain = unicodedata.normalize("NFKC", UNSEEN.sub("", unicodedata.normalize("NFD", prompt).casefold()))
    return " ".join(UNSEEN.sub("", unicodedata.normalize("NFKC", plain.casefold())).split())
