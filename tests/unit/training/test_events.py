"""TensorBoard's events: read by TensorBoard as its own writer's are, on disk at once, and without a thread to wait for."""

import errno
import os
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from d3po.artifacts.files import GrowingFile
from d3po.errors import StorageError
from d3po.training.events import EventFile


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found: Any = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tensorboard_reads_what_was_written_before_the_file_is_closed(tmp_path: Path) -> None:
    with closing(EventFile(tmp_path / "tensorboard", purge_step=0)) as events:
        events.write({"train/loss": 0.5, "train/kl/early": 0.25}, step=0)
        events.write({"train/loss": -1.5}, step=1)
        assert read(tmp_path / "tensorboard") == {"train/loss": [(0, 0.5), (1, -1.5)], "train/kl/early": [(0, 0.25)]}


@pytest.mark.parametrize(("purge", "left"), [(1, [(0, 0.0), (1, 5.0)]), (None, [(0, 0.0), (1, 1.0), (2, 2.0), (1, 5.0)])])
def test_a_later_file_may_make_earlier_ones_forgotten(tmp_path: Path, purge: int | None, left: list[tuple[int, float]]) -> None:
    with closing(EventFile(tmp_path, purge_step=0)) as events:
        for step in range(3):
            events.write({"a": float(step)}, step=step)
    with closing(EventFile(tmp_path, purge_step=purge)) as events:
        events.write({"a": 5.0}, step=1)
    assert read(tmp_path)["a"] == left


def test_no_thread_is_started(tmp_path: Path) -> None:
    before = threading.active_count()
    with closing(EventFile(tmp_path, purge_step=None)) as events:
        events.write({"a": 1.0}, step=0)
        assert threading.active_count() == before


@pytest.mark.parametrize("error", [KeyboardInterrupt(), StorageError("full"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))], ids=repr)
def test_interrupted_in_the_middle_of_a_record_it_can_be_closed_and_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def interrupted(file: GrowingFile, piece: bytes) -> None:
        raise error

    with closing(EventFile(tmp_path, purge_step=None)) as events:
        events.write({"a": 1.0}, step=0)
        monkeypatch.setattr(GrowingFile, "append", interrupted)
        with pytest.raises(type(error)):
            events.write({"a": 2.0}, step=1)
    assert read(tmp_path) == {"a": [(0, 1.0)]}


def test_the_same_is_read_as_of_tensorboards_own_writer(tmp_path: Path) -> None:
    from torch.utils.tensorboard.writer import SummaryWriter

    values: list[dict[str, Any]] = [{"train/loss": 0.1, "train/margin": float("inf")}, {"train/loss": 1e-30}]
    with SummaryWriter(str(tmp_path / "theirs"), purge_step=0) as theirs, closing(EventFile(tmp_path / "ours", purge_step=0)) as ours:
        for step, scalars in enumerate(values):
            ours.write(scalars, step=step)
            for name, value in scalars.items():
                theirs.add_scalar(name, value, step)
    assert read(tmp_path / "ours") == read(tmp_path / "theirs")
