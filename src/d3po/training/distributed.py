"""The processes that train one policy together: who is the first, and how they agree."""

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
"""How long processes wait for each other: people may take days to answer. What ends a dead group is its launcher, not this."""


class Distributed:
    """All processes of a run, or the only one. Every method but `share` is called by all of them, in the same order.

    With `divided` the processes share one network, and the first of them is a group of one.
    """

    def __init__(self, *, divided: bool = False) -> None:
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        self._state = PartialState(cpu=several and not torch.cuda.is_available(), timeout=PATIENCE)
        self.rank, self.processes = self._state.process_index, self._state.num_processes
        self.size = 1 if divided else self.processes
        self.lends = divided and self.rank > 0
        """Whether this process does nothing but compute parts of the first one's network calls."""

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return torch.device(str(self._state.device))

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """Those of the items that are this process's to do."""
        return list(items[self.rank :: self.size])

    def lead(self, work: Callable[[], T]) -> T:
        """Let the first process do the work while the others wait; all have its result, or raise its error.

        Any error but d3po's own ends the first process, and with it, by the launcher, all of them.
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
        """Let the first process do the work, then the others, who find what it has written."""
        if self.size == 1:
            return work()
        mine: list[T] = []
        self.lead(lambda: mine.append(work()))
        return mine[0] if self.leads else work()

    def gather(self, item: T) -> list[T]:
        """Everybody's item, in the order of ranks."""
        return gather_object([item]) if self.size > 1 else [item]

    @torch.no_grad()
    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Put the sum of all processes' gradients in place of each one's."""
        if self.size == 1:
            return
        weights = list(parameters)
        mine = torch.cat([(torch.zeros_like(w) if w.grad is None else w.grad).flatten() for w in weights])
        total: Tensor = reduce(mine, reduction="sum")  # pyright: ignore[reportAssignmentType] - a tensor in, a tensor out
        for weight, grad in zip(weights, total.split([w.numel() for w in weights]), strict=True):
            weight.grad = grad.view_as(weight).clone()
