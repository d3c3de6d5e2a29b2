"""Prompt embeddings on disk: one safetensors file a prompt, named by what it was made from and by the hash of its own bytes."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save
from torch import Tensor

from d3po.artifacts.files import find_whole, write_atomically

SHOWN = 16
"""Hexadecimal digits of a hash in a name."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingCache:
    """A prompt's embedding, one row a tensor, kept for one model under one set of settings; a damaged file counts as absent."""

    directory: Path
    made_by: Mapping[str, object]
    """Everything besides the prompt that decides an embedding: the model, its precision, the settings it is encoded under."""

    def read(self, prompt: str) -> dict[str, Tensor] | None:
        """What was kept for the prompt, if anything."""
        path = find_whole(self.directory, self._key(prompt))
        return None if path is None else load_file(path)

    def write(self, prompt: str, rows: Mapping[str, Tensor]) -> None:
        """Keep a prompt's embedding."""
        content = save({name: value.cpu().contiguous() for name, value in rows.items()})
        digest = hashlib.sha256(content).hexdigest()[:SHOWN]
        write_atomically(self.directory / f"{self._key(prompt)}-{digest}.safetensors", content)

    def _key(self, prompt: str) -> str:
        identity = json.dumps({"prompt": prompt, **self.made_by}, sort_keys=True)
        return hashlib.sha256(identity.encode()).hexdigest()[: 2 * SHOWN]
