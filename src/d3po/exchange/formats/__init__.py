"""File formats of votes, a module each. They read and write the format-independent records of `neutral`, which stand between files and the store."""

from collections.abc import Mapping
from difflib import get_close_matches

from d3po.errors import FormatError
from d3po.exchange.formats.argilla import Argilla
from d3po.exchange.formats.base import AbstractFormat
from d3po.exchange.formats.d3po_json import D3POJson
from d3po.exchange.formats.folders import Folders
from d3po.exchange.formats.jsonl_pairs import JsonlPairs
from d3po.exchange.formats.label_studio import LabelStudio
from d3po.exchange.formats.likes_csv import LikesCsv
from d3po.exchange.formats.pickapic import PickAPic
from d3po.exchange.formats.vote_log import VoteLog

__all__ = ["FORMATS", "find_format"]

FORMATS: Mapping[str, AbstractFormat] = {
    each.name: each for each in (VoteLog(), PickAPic(), JsonlPairs(), Folders(), LikesCsv(), D3POJson(), LabelStudio(), Argilla())
}


def find_format(name: str) -> AbstractFormat:
    """The format with this name.

    Raises:
        FormatError: there is none.
    """
    if name not in FORMATS:
        near = get_close_matches(name, FORMATS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(FORMATS)}"
        raise FormatError(f"there is no format {name!r}; {hint}")
    return FORMATS[name]
