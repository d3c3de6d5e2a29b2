"""Checkpoints: one safetensors file each, named by round, update and the hash of its bytes.

A file whose hash differs from the one in its name is damaged. There is no index, so none can disagree with the files.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from d3po.artifacts.files import sha256, write_atomically
from d3po.errors import CorruptFileError

_NAME = re.compile(r"round-(\d{3,})-update-(\d{6,})(-final)?-([0-9a-f]{16})\.safetensors")
KEEP_PER_ROUND = 2
"""Checkpoints within a round that are kept."""


@dataclass(frozen=True, kw_only=True, order=True)
class CheckpointFile:
    """A checkpoint on disk, ordered by progress."""

    round: int
    update: int
    final: bool
    path: Path

    def load(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Verify the file's bytes, then read its tensors and metadata.

        Raises:
            CorruptFileError: the bytes are not those that were written.
        """
        match = _NAME.fullmatch(self.path.name)
        if match is None or not sha256(self.path).startswith(match[4]):
            raise CorruptFileError(
                f"checkpoint {self.path} is damaged: its SHA-256 does not begin with the {match[4] if match else '?'} in its name; "
                "delete the file to continue from the checkpoint before it"
            )
        with safe_open(self.path, framework="pt") as file:
            metadata = file.metadata() or {}
            return {name: file.get_tensor(name) for name in sorted(file.keys())}, metadata


def list_checkpoints(directory: Path) -> list[CheckpointFile]:
    """All checkpoints in `directory`, oldest first."""
    found: list[CheckpointFile] = []
    for path in directory.glob("*.safetensors"):
        if match := _NAME.fullmatch(path.name):
            found.append(CheckpointFile(round=int(match[1]), update=int(match[2]), final=match[3] is not None, path=path))
    return sorted(found)


def save_checkpoint(
    directory: Path, *, round: int, update: int, final: bool, tensors: dict[str, Tensor], metadata: dict[str, object]
) -> Path:
    """Write a checkpoint, then delete the round's older ones that are not final (a final checkpoint is kept for good)."""
    content = save(tensors, metadata={key: json.dumps(value) for key, value in metadata.items()})
    digest = hashlib.sha256(content).hexdigest()[:16]
    path = directory / f"round-{round:03}-update-{update:06}{'-final' if final else ''}-{digest}.safetensors"
    write_atomically(path, content)
    unfinished = [c for c in list_checkpoints(directory) if c.round == round and not c.final]
    for old in unfinished if final else unfinished[:-KEEP_PER_ROUND]:
        old.path.unlink(missing_ok=True)
    return path


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, by name without the prefix."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
