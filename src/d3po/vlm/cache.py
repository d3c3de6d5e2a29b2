"""A cache of answers on disk, so that no answer is paid for twice: one small file each, named by the hash of everything that the answer depends on."""

import hashlib
import json
from pathlib import Path

from pydantic import ValidationError

from d3po.artifacts.records import read_record, write_record
from d3po.errors import CorruptFileError
from d3po.vlm.questions import PROTOCOL
from d3po.vlm.reading import Opinion


class VerdictCache:
    """The opinions of one model by one criterion.

    Args:
        directory: the folder of the files.
        model: the model that is asked.
        criterion: the criterion by which it compares.
    """

    def __init__(self, directory: Path, *, model: str, criterion: str) -> None:
        self._directory, self._asked = directory, [PROTOCOL, model, criterion]

    def get(self, prompt: str, first: bytes, second: bytes) -> Opinion | None:
        """The opinion on two pictures in this order; None if it is not in the cache, or damaged."""
        try:
            return Opinion.model_validate(read_record(self._path(prompt, first, second), remedy="it is asked for again"))
        except (CorruptFileError, ValidationError):
            return None

    def put(self, prompt: str, first: bytes, second: bytes, opinion: Opinion) -> None:
        """Store an opinion on two pictures in this order."""
        write_record(self._path(prompt, first, second), opinion.model_dump(mode="json"))

    def _path(self, prompt: str, first: bytes, second: bytes) -> Path:
        key = json.dumps([*self._asked, prompt, hashlib.sha256(first).hexdigest(), hashlib.sha256(second).hexdigest()])
        name = hashlib.sha256(key.encode()).hexdigest()
        return self._directory / name[:2] / f"{name}.json"
