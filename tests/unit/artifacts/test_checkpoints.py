"""Checkpoints: found in order, verified by their names, and not hoarded."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from d3po.artifacts.checkpoints import KEEP_PER_ROUND, list_checkpoints, save_checkpoint
from d3po.artifacts.files import sha256
from d3po.errors import CorruptFileError, StorageError

WEIGHTS = {"policy.a": torch.arange(6.0).view(2, 3), "adam.step.a": torch.tensor(3.0), "half": torch.ones(2, dtype=torch.float16)}


def save(directory: Path, round: int = 0, update: int = 1, *, final: bool = False, **metadata: Any) -> Path:
    tensors = WEIGHTS | {"mark": torch.tensor([round, update, final])}
    return save_checkpoint(directory, round=round, update=update, final=final, tensors=tensors, metadata=metadata)


def progress(directory: Path) -> list[tuple[int, int, bool]]:
    return [(checkpoint.round, checkpoint.update, checkpoint.final) for checkpoint in list_checkpoints(directory)]


def test_tensors_and_metadata_come_back(tmp_path: Path) -> None:
    save(tmp_path, 2, 7, losses=[0.5, 0.25], note="ünicode")
    (checkpoint,) = list_checkpoints(tmp_path)
    tensors, metadata = checkpoint.load()
    assert (checkpoint.round, checkpoint.update, checkpoint.final) == (2, 7, False)
    assert tensors.keys() == {*WEIGHTS, "mark"}
    for name, expected in WEIGHTS.items():
        assert tensors[name].dtype == expected.dtype
        assert torch.equal(tensors[name], expected)
    assert {key: json.loads(value) for key, value in metadata.items()} == {"losses": [0.5, 0.25], "note": "ünicode"}


def test_name_holds_the_hash_of_the_bytes(tmp_path: Path) -> None:
    path = save(tmp_path, 1, 3, final=True)
    assert path.name == f"round-001-update-000003-final-{sha256(path)[:16]}.safetensors"


def test_same_state_makes_the_same_bytes(tmp_path: Path) -> None:
    assert save(tmp_path / "a").read_bytes() == save(tmp_path / "b").read_bytes()


def test_checkpoints_are_listed_oldest_first(tmp_path: Path) -> None:
    for round, update, final in ((1, 2, False), (0, 100, True), (10, 0, False), (2, 9, True), (1, 1, False), (1, 10, False)):
        save(tmp_path, round, update, final=final)
    assert progress(tmp_path) == [(0, 100, True), (1, 2, False), (1, 10, False), (2, 9, True), (10, 0, False)]


def test_finished_round_ranks_above_its_last_update(tmp_path: Path) -> None:
    save(tmp_path, 0, 8, final=True)
    save(tmp_path, 0, 8)
    assert progress(tmp_path) == [(0, 8, False), (0, 8, True)]


def test_unfinished_round_keeps_its_last_checkpoints_only(tmp_path: Path) -> None:
    for update in range(1, 6):
        save(tmp_path, 0, update)
    assert progress(tmp_path) == [(0, update, False) for update in range(1, 6)][-KEEP_PER_ROUND:]


def test_finished_round_keeps_its_final_checkpoint_only(tmp_path: Path) -> None:
    for update in (1, 2):
        save(tmp_path, 0, update)
    save(tmp_path, 0, 3, final=True)
    for update in (1, 2, 3):
        save(tmp_path, 1, update)
    assert progress(tmp_path) == [(0, 3, True), (1, 2, False), (1, 3, False)]


@pytest.mark.parametrize("place", [0, 20, -1])
def test_one_flipped_bit_is_found(tmp_path: Path, place: int) -> None:
    path = save(tmp_path)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    (checkpoint,) = list_checkpoints(tmp_path)
    with pytest.raises(CorruptFileError, match=r"is damaged: .*delete the file to continue from the checkpoint before it"):
        checkpoint.load()


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "weights.safetensors",
        ".round-000-update-000001-0123456789abcdef.safetensors.writing",
        "round-0-update-1-0123456789abcdef.safetensors",
        "round-000-update-000001-0123456789abcdef.safetensors.part",
    ],
)
def test_other_files_are_no_checkpoints(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"something")
    assert list_checkpoints(tmp_path) == []


def test_folder_that_is_not_there_holds_no_checkpoints(tmp_path: Path) -> None:
    assert list_checkpoints(tmp_path / "not yet") == []


def test_full_disk_keeps_the_checkpoints_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for update in (1, 2):
        save(tmp_path, 0, update)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        save(tmp_path, 0, 3, final=True)
    assert progress(tmp_path) == [(0, 1, False), (0, 2, False)]
    for checkpoint in list_checkpoints(tmp_path):
        checkpoint.load()
