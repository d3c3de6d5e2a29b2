"""One process as a group of one, and what a group of two does with an error (the real two are in tests/e2e/test_processes.py)."""

from typing import Any

import pytest
import torch

from d3po.errors import ConfigError, TrainingStoppedError
from d3po.training.distributed import Distributed


class Wire:
    """What the first process says reaches the second."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.said: list[Any] = []
        patch.setattr("d3po.training.distributed.broadcast_object_list", self._broadcast)

    def _broadcast(self, outcome: list[Any]) -> list[Any]:
        if outcome != [None]:
            self.said = outcome
        return self.said


def member(rank: int) -> Distributed:
    distributed = Distributed()
    distributed.rank, distributed.size = rank, 2
    return distributed


def test_one_process_leads_and_does_everything() -> None:
    distributed = Distributed()
    assert distributed.leads
    assert distributed.share([1, 2, 3]) == [1, 2, 3]
    assert distributed.lead(lambda: 5) == distributed.first(lambda: 5) == 5
    assert distributed.gather("a") == ["a"]
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([1.0, 2.0])
    distributed.add_gradients([weight])
    assert weight.grad.tolist() == [1.0, 2.0]


def test_shares_are_all_of_the_work_and_none_twice() -> None:
    shares = [member(rank).share(list(range(5))) for rank in (0, 1)]
    assert shares == [[0, 2, 4], [1, 3]]


def test_an_error_of_the_first_process_is_everybodys_and_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(monkeypatch)

    def stop() -> None:
        raise TrainingStoppedError("a guard fired")

    with pytest.raises(TrainingStoppedError) as first:
        member(0).lead(stop)
    assert wire.said[0][1] is not None
    assert not first.value.said_elsewhere
    with pytest.raises(TrainingStoppedError, match="a guard fired") as second:
        member(1).lead(lambda: pytest.fail("the second process does not do the first one's work"))
    assert second.value.said_elsewhere


def test_what_the_first_process_found_is_everybodys(monkeypatch: pytest.MonkeyPatch) -> None:
    Wire(monkeypatch)
    assert member(0).lead(lambda: 7) == 7
    assert member(1).lead(lambda: 0) == 7


def test_the_others_do_the_work_themselves_once_the_first_has_done_it(monkeypatch: pytest.MonkeyPatch) -> None:
    Wire(monkeypatch)
    assert member(0).first(lambda: "made") == "made"
    assert member(1).first(lambda: "found") == "found"
    with pytest.raises(ConfigError):
        member(0).first(lambda: (_ for _ in ()).throw(ConfigError("no")))
    with pytest.raises(ConfigError):
        member(1).first(lambda: pytest.fail("nothing was made that could be found"))
