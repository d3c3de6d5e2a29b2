"""The processes that train one policy together, and their collective operations."""

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, reduce
from torch import Tensor

from d3po.errors import D3POError

T = TypeVar("T")

PATIENCE = timedelta(days=30)
"""How long processes wait for each other. People may take days to answer; a group with a dead process is ended by its launcher, not by this timeout."""


class Distributed:
    """All processes of a run, or the only one. Every method but `share` must be called by all of them, in the same order.

    Attributes:
        rank: this process's number, from 0.
        processes: how many processes there are.
        size: how many processes do work of their own. With `divided` this is 1: the network is divided among the processes, and all but the first only
            help to evaluate it.
    """

    def __init__(self, *, divided: bool = False) -> None:
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        self._state = PartialState(cpu=several and not torch.cuda.is_available(), timeout=PATIENCE)
        self.rank, self.processes = self._state.process_index, self._state.num_processes
        self.size = 1 if divided else self.processes
        self.lends = divided and self.rank > 0
        """Whether this process only computes parts of the first process's network calls."""

    @property
    def device(self) -> torch.device:
        """The device that this process computes on."""
        return torch.device(str(self._state.device))

    @property
    def leads(self) -> bool:
        """Whether this is the first process, which alone writes files and messages."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """The items that this process has to work on."""
        return list(items[self.rank :: self.size])

    def lead(self, work: Callable[[], T]) -> T:
        """Run `work` in the first process while the others wait. All return its result, or raise its `D3POError`.

        Any other error ends the first process, after which the launcher ends the rest.
        """
        if self.size == 1:
            return work()
        outcome: list[Any] = [None]
        if self.leads:
            try:
                outcome = [(work(), None)]
            except D3POError as error:
                outcome = [(None, error)]
        result, error = broadcast_object_list(outcome)[0]
        if error is not None:
            error.said_elsewhere = not self.leads
            raise error
        return result

    def first(self, work: Callable[[], T]) -> T:
        """Run `work` in the first process, then in the others, which find what the first has written."""
        if self.size == 1:
            return work()
        mine: list[T] = []
        self.lead(lambda: mine.append(work()))
        return mine[0] if self.leads else work()

    def gather(self, item: T) -> list[T]:
        """Collect one item from each process, in the order of ranks."""
        return gather_object([item]) if self.size > 1 else [item]

    @torch.no_grad()
    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace each process's gradients by their sum over all processes."""
        if self.size == 1:
            return
        weights = list(parameters)
        mine = torch.cat([(torch.zeros_like(w) if w.grad is None else w.grad).flatten() for w in weights])
        total: Tensor = reduce(mine, reduction="sum")  # pyright: ignore[reportAssignmentType] - a tensor in, a tensor out
        for weight, grad in zip(weights, total.split([w.numel() for w in weights]), strict=True):
            weight.grad = grad.view_as(weight).clone()
