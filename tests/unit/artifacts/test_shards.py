"""Trajectory shards: what goes in comes out, once, whole or not at all."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from d3po.artifacts.files import sha256
from d3po.artifacts.shards import Shard, open_shard, writing_shard
from d3po.diffusion.divergence import WIDTH, sketch_width
from d3po.errors import CorruptFileError

Precision = Literal["float32", "float16"]


def trajectory(steps: int, batch: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(steps * 100 + batch)
    return torch.randn(steps + 1, batch, *shape, generator=generator), torch.randn(steps, batch, generator=generator)


def sketches_of(log_probs: Tensor, shape: Sequence[int]) -> Tensor:
    """Any numbers in a sketch's place; nan where log-probs are."""
    return log_probs[..., None] + torch.arange(sketch_width(torch.Size(shape).numel()))


def write(path: Path, latents: Tensor, log_probs: Tensor, dtype: Precision = "float32") -> str:
    sketches = sketches_of(log_probs, latents.shape[2:])
    with writing_shard(path, num_steps=len(log_probs), batch=latents.shape[1], latent_shape=tuple(latents.shape[2:]), dtype=dtype) as shard:
        shard.append(latents[0])
        for x, log_prob, sketch in zip(latents[1:], log_probs, sketches, strict=True):
            shard.append(x, log_prob, sketch)
        return shard.finish()


@pytest.fixture
def shard_file(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "shard.safetensors"
    return path, write(path, *trajectory(5, 3, (4, 8, 8)))


@settings(max_examples=25, deadline=None)
@given(steps=st.integers(1, 6), batch=st.integers(1, 4), channels=st.integers(1, 3), side=st.integers(1, 5))
def test_everything_comes_back_bit_by_bit(
    tmp_path_factory: pytest.TempPathFactory, steps: int, batch: int, channels: int, side: int
) -> None:
    latents, log_probs = trajectory(steps, batch, (channels, side, side))
    path = tmp_path_factory.mktemp("shard") / "shard.safetensors"
    shard = open_shard(path, write(path, latents, log_probs))
    assert torch.equal(torch.stack([shard.latents(i) for i in range(steps + 1)]), latents)
    assert torch.equal(shard.log_probs(), log_probs)
    sketches = shard.sketches()
    assert sketches is not None
    assert torch.equal(sketches, sketches_of(log_probs, latents.shape[2:]))


def test_a_shard_from_before_sketches_has_none(tmp_path: Path) -> None:
    save_file({"latents": torch.zeros(2, 1, 3), "log_probs": torch.zeros(1, 1)}, tmp_path / "s")
    assert Shard(path=tmp_path / "s").sketches() is None


def test_half_precision_rounds_the_latents_and_not_the_log_probs(tmp_path: Path) -> None:
    latents, log_probs = trajectory(5, 3, (4, 8, 8))
    shard = open_shard(tmp_path / "s", write(tmp_path / "s", latents, log_probs, "float16"))
    assert shard.latents(2).dtype == torch.float32
    assert torch.equal(shard.latents(2), latents[2].half().float())
    assert torch.equal(shard.log_probs(), log_probs)


def test_deterministic_steps_keep_their_nan(tmp_path: Path) -> None:
    latents, log_probs = trajectory(3, 2, (1, 2, 2))
    log_probs[-1] = torch.nan
    shard = open_shard(tmp_path / "s", write(tmp_path / "s", latents, log_probs))
    assert shard.log_probs().isnan().tolist() == [[False] * 2, [False] * 2, [True] * 2]


def test_plain_safetensors_reads_a_shard(shard_file: tuple[Path, str]) -> None:
    from safetensors.torch import load_file

    latents, log_probs = trajectory(5, 3, (4, 8, 8))
    tensors = load_file(shard_file[0])
    assert torch.equal(tensors["latents"], latents)
    assert torch.equal(tensors["log_probs"], log_probs)


def test_checksum_is_that_of_the_file(shard_file: tuple[Path, str]) -> None:
    path, checksum = shard_file
    assert checksum == sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_same_trajectory_makes_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, *trajectory(5, 3, (4, 8, 8))) for name in ("a", "b"))
    assert first == second


@pytest.mark.parametrize(("dtype", "itemsize"), [("float32", 4), ("float16", 2)])
def test_each_latent_is_stored_once(tmp_path: Path, dtype: Precision, itemsize: int) -> None:
    """The bytes of K images times T+1 latents of Stable Diffusion's size; beside them 513 numbers a step, which are 3 to 6 %."""
    images, steps, shape = 2, 20, (4, 64, 64)
    write(tmp_path / "s", *trajectory(steps, images, shape), dtype=dtype)
    latents = images * (steps + 1) * torch.Size(shape).numel() * itemsize
    assert 0 < (tmp_path / "s").stat().st_size - latents - images * steps * 4 * (1 + WIDTH) < 1000


@pytest.mark.parametrize("place", [0, 7, 40, -1, -200, 1000])
def test_one_flipped_bit_is_found(shard_file: tuple[Path, str], place: int) -> None:
    path, checksum = shard_file
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=rf"{path} is damaged: its SHA-256 is not the {checksum[:12]}"):
        open_shard(path, checksum)


def test_shard_cut_short_is_found(shard_file: tuple[Path, str]) -> None:
    path, checksum = shard_file
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(CorruptFileError, match="is damaged"):
        open_shard(path, checksum)


def test_missing_shard_is_named_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match=r"gone.safetensors cannot be read .*; make it again with `d3po sample RUN --repair`"):
        open_shard(tmp_path / "gone.safetensors", "0" * 64)


@pytest.mark.parametrize("given_steps", [0, 1, 3])
def test_shard_with_steps_missing_or_too_many_is_not_finished(tmp_path: Path, given_steps: int) -> None:
    latents, log_probs = trajectory(3, 2, (1, 2, 2))

    def write_wrongly() -> None:
        with writing_shard(tmp_path / "s", num_steps=2, batch=2, latent_shape=(1, 2, 2), dtype="float32") as shard:
            shard.append(latents[0])
            for step in range(given_steps):
                shard.append(latents[step + 1], log_probs[step], torch.zeros(2, 4))
            shard.finish()

    with pytest.raises(ValueError, match=f"a shard of 3 latents got {given_steps + 1} of them and {given_steps} log-probs"):
        write_wrongly()
    assert not (tmp_path / "s").exists()


def test_killed_writer_leaves_no_file_and_a_second_one_finishes(tmp_path: Path) -> None:
    path = tmp_path / "shard.safetensors"
    killed = f"""
import os, signal, torch
from pathlib import Path
from d3po.artifacts.shards import writing_shard
with writing_shard(Path({str(path)!r}), num_steps=2, batch=1, latent_shape=(1, 8, 8), dtype="float32") as shard:
    shard.append(torch.zeros(1, 1, 8, 8))
    shard.append(torch.zeros(1, 1, 8, 8), torch.zeros(1), torch.zeros(1, 64))
    shard._file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    source = Path(__file__).parents[3] / "src"
    process = subprocess.run([sys.executable, "-c", killed], env={**os.environ, "PYTHONPATH": str(source)}, check=False)
    assert process.returncode == -signal.SIGKILL
    assert not path.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == [".shard.safetensors.writing"]
    latents, log_probs = trajectory(2, 1, (1, 8, 8))
    assert torch.equal(open_shard(path, write(path, latents, log_probs)).log_probs(), log_probs)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_latents_of_a_step_are_one_run_of_bytes(shard_file: tuple[Path, str]) -> None:
    """Step-major order: reading a step leaves the others on disk."""
    path, _ = shard_file
    latents, _ = trajectory(5, 3, (4, 8, 8))
    assert path.read_bytes().count(latents[2].numpy().tobytes()) == 1
    assert torch.equal(Shard(path=path).latents(2), latents[2])
