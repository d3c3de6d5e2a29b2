"""Prompt embeddings on disk: one safetensors file for each prompt, named by a hash of what it was made from and by the hash of its bytes."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save
from torch import Tensor

from d3po.artifacts.files import find_whole, write_atomically

SHOWN = 16
"""Hexadecimal digits of the content's hash in a file name; the key has twice as many."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingCache:
    """Prompt embeddings of one model under one set of settings, as tensors of batch size 1 by name. A damaged file counts as absent."""

    directory: Path
    made_by: Mapping[str, object]
    """Everything besides the prompt that an embedding depends on: the model, its precision, the settings of encoding."""

    def read(self, prompt: str) -> dict[str, Tensor] | None:
        """The prompt's embedding; None if it is not in the cache."""
        path = find_whole(self.directory, self._key(prompt))
        return None if path is None else load_file(path)

    def write(self, prompt: str, embedding: Mapping[str, Tensor]) -> None:
        """Store a prompt's embedding."""
        content = save({name: value.cpu().contiguous() for name, value in embedding.items()})
        digest = hashlib.sha256(content).hexdigest()[:SHOWN]
        write_atomically(self.directory / f"{self._key(prompt)}-{digest}.safetensors", content)

    def _key(self, prompt: str) -> str:
        identity = json.dumps({"prompt": prompt, **self.made_by}, sort_keys=True)
        return hashlib.sha256(identity.encode()).hexdigest()[: 2 * SHOWN]
