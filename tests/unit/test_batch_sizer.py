"""Batches that do not fit: a stub that runs out of memory above a size."""

import pytest
import torch
from torch import Tensor

from d3po.batch_sizer import BatchSizer
from d3po.errors import ConfigError


@pytest.fixture(autouse=True)
def nothing_to_collect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collecting garbage takes a second among the tests' many objects."""
    monkeypatch.setattr("d3po.batch_sizer.clear_device_cache", lambda **_: None)


class Memory:
    """Doubles rows of a table, as long as they are few enough."""

    def __init__(self, most: int) -> None:
        self.most, self.tried = most, list[int]()

    def __call__(self, part: slice) -> Tensor:
        rows = torch.arange(10.0)[part]
        self.tried.append(len(rows))
        if len(rows) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return 2 * rows


def test_a_batch_that_fits_is_one_call() -> None:
    said: list[str] = []
    memory = Memory(10)
    assert torch.equal(BatchSizer("sampling", said.append).split(memory, 10), 2 * torch.arange(10.0))
    assert memory.tried == [10]
    assert said == []


def test_a_batch_that_does_not_fit_is_halved_until_it_does_and_stays_so() -> None:
    said: list[str] = []
    sizer, memory = BatchSizer("sampling", said.append), Memory(3)
    for _ in range(2):
        assert torch.equal(sizer.split(memory, 10), 2 * torch.arange(10.0))
    assert memory.tried == [10, 5, 3, 3, 3, 1, 3, 3, 3, 1]
    assert said == [
        "sampling: a batch of 10 does not fit into memory; continuing with batches of 5",
        "sampling: a batch of 5 does not fit into memory; continuing with batches of 3",
    ]


def test_a_smaller_batch_is_not_made_larger() -> None:
    sizer, memory = BatchSizer("sampling", lambda _: None), Memory(4)
    sizer.split(memory, 10)
    memory.tried.clear()
    sizer.split(memory, 2)
    assert memory.tried == [2]


def test_parts_are_no_larger_than_asked_for() -> None:
    memory = Memory(10)
    assert torch.equal(BatchSizer("encoding", lambda _: None).split(memory, 10, most=4), 2 * torch.arange(10.0))
    assert memory.tried == [4, 4, 2]


@pytest.mark.parametrize(("most", "halve", "words"), [(0, True, "a batch of 1 does not fit"), (3, False, "a batch of 10 does not fit")])
def test_where_nothing_is_left_to_halve_the_remedies_are_named(most: int, halve: bool, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"decoding: {words} into memory; try training\.gradient_checkpointing"):
        BatchSizer("decoding", lambda _: None, halve=halve).split(Memory(most), 10)


def test_other_errors_pass() -> None:
    def broken(part: slice) -> Tensor:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        BatchSizer("sampling", lambda _: None).split(broken, 4)
