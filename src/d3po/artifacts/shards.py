"""Trajectory shards: every latent of B images, stored once, in one safetensors file that is written step by step.

A shard contains `latents` (T+1, B, C, H, W), x_T first; the `log_probs` (T, B) of the steps under the sampling policy, nan where a step is deterministic;
and `sketches` (T, B, width) of the sampling policy's means. Step-major order lets the sampler append each step as it happens, so that its memory does not
grow with T, and lets training read one step without the others.
"""

import hashlib
import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from d3po.artifacts.files import atomic_file, sha256
from d3po.diffusion.divergence import sketch_width
from d3po.diffusion.transition import at_least_float32
from d3po.errors import CorruptFileError
from d3po.options import Stored

_SAFETENSORS_DTYPE = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16"}


class ShardWriter:
    """Appends the steps of one rollout; create it with `writing_shard`."""

    def __init__(self, file: BinaryIO, *, num_steps: int, batch: int, latent_shape: tuple[int, ...], dtype: Stored) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._dtype = getattr(torch, dtype)
        # Tables made in advance: a small tensor kept per step would lie between the freed large ones and pin the heap.
        dimensions, precision = torch.Size(latent_shape).numel(), torch.promote_types(self._dtype, torch.float32)
        self._log_probs = torch.empty(num_steps, batch, dtype=precision)
        self._sketches = torch.empty(num_steps, batch, sketch_width(dimensions), dtype=precision)
        self._latents, self._steps = 0, 0
        latent_bytes = (num_steps + 1) * batch * dimensions * self._dtype.itemsize
        entries = {
            "latents": {
                "dtype": _SAFETENSORS_DTYPE[self._dtype],
                "shape": [num_steps + 1, batch, *latent_shape],
                "data_offsets": [0, latent_bytes],
            }
        }
        end = latent_bytes
        for name, table in (("log_probs", self._log_probs), ("sketches", self._sketches)):
            entries[name] = {
                "dtype": _SAFETENSORS_DTYPE[table.dtype],
                "shape": list(table.shape),
                "data_offsets": [end, end + table.nbytes],
            }
            end += table.nbytes
        header = json.dumps(entries, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)
        self._write(len(header).to_bytes(8, "little") + header)

    def append(
        self,
        latents: Float[Tensor, " B *latent"],
        log_probs: Float[Tensor, " B"] | None = None,
        sketches: Float[Tensor, " B width"] | None = None,
    ) -> None:
        """Append x_T alone, then the latents of every step with its log-probs and sketches, in sampling order."""
        self._write(latents.to("cpu", self._dtype).contiguous().numpy().tobytes())
        self._latents += 1
        if log_probs is not None and sketches is not None:
            if self._steps < len(self._log_probs):
                self._log_probs[self._steps], self._sketches[self._steps] = log_probs, sketches
            self._steps += 1

    def finish(self) -> str:
        """Write the log-probs and sketches, and return the file's SHA-256.

        Raises:
            ValueError: not all steps were appended.
        """
        expected = len(self._log_probs)
        if (self._latents, self._steps) != (expected + 1, expected):
            raise ValueError(f"a shard of {expected + 1} latents got {self._latents} of them and {self._steps} log-probs")
        self._write(self._log_probs.numpy().tobytes())
        self._write(self._sketches.numpy().tobytes())
        return self._hash.hexdigest()

    def _write(self, data: bytes) -> None:
        self._hash.update(data)
        self._file.write(data)


@contextmanager
def writing_shard(
    path: Path, *, num_steps: int, batch: int, latent_shape: tuple[int, ...], dtype: Stored
) -> Generator[ShardWriter, None, None]:
    """Make a writer whose file appears under `path` when the block ends without an error.

    Raises:
        StorageError: the disk is full or not writable.
    """
    with atomic_file(path) as file:
        yield ShardWriter(file, num_steps=num_steps, batch=batch, latent_shape=latent_shape, dtype=dtype)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A finished shard on disk."""

    path: Path

    @cached_property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one image's latents."""
        with safe_open(self.path, framework="pt") as file:
            return tuple(file.get_slice("latents").get_shape()[2:])

    def latents(self, step: int) -> Float[Tensor, " B *latent"]:
        """The latents of every image at position `step` (0 is x_T, T is x_0), in float32, or in float64 if they are stored so."""
        with safe_open(self.path, framework="pt") as file:
            return at_least_float32(file.get_slice("latents")[step])

    def clean(self) -> Float[Tensor, " B *latent"]:
        """The final latents x_0 of every image, in float32, or in float64 if they are stored so."""
        with safe_open(self.path, framework="pt") as file:
            latents = file.get_slice("latents")
            return at_least_float32(latents[latents.get_shape()[0] - 1])

    def log_probs(self) -> Float[Tensor, "T B"]:
        """log pi(x_{t-1} | x_t) of every step under the sampling policy, in nats; nan where a step is deterministic."""
        with safe_open(self.path, framework="pt") as file:
            return file.get_tensor("log_probs")

    def sketches(self) -> Float[Tensor, "T B width"] | None:
        """Sketches of every step's mean under the sampling policy; None for a shard written before shards had them."""
        with safe_open(self.path, framework="pt") as file:
            return file.get_tensor("sketches") if "sketches" in set(file.keys()) else None


def open_shard(path: Path, checksum: str) -> Shard:
    """Verify the bytes of the shard at `path` and open it.

    Raises:
        CorruptFileError: the file is missing or not what was written.
    """
    remedy = "make it again with `d3po sample RUN --repair`"
    try:
        if sha256(path) == checksum:
            return Shard(path=path)
    except OSError as error:
        raise CorruptFileError(f"rollout shard {path} cannot be read ({error}); {remedy}") from error
    raise CorruptFileError(
        f"rollout shard {path} is damaged: its SHA-256 is not the {checksum[:12]}... recorded when it was written; {remedy}"
    )
