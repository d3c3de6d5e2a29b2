"""Halves batches that do not fit into memory."""

from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor

from d3po.errors import ConfigError

T = TypeVar("T")


class BatchSizer:
    """Finds the batch size that fits into memory for one kind of work.

    It halves the batch size when memory runs out, keeps the smaller size for all later calls, and tells the user once.

    Args:
        what: the work as messages name it, such as "sampling".
        say: shows a message to the user.
        halve: whether to halve; if not, running out of memory ends the run.
    """

    def __init__(self, what: str, say: Callable[[str], None], *, halve: bool = True) -> None:
        self._what, self._say, self._halve = what, say, halve
        self._most: int | None = None

    def run(self, work: Callable[[int], T], batch_size: int) -> T:
        """Return `work(size)` for the largest known size that fits, at most `batch_size`. `work` starts over with half the size when memory runs out.

        Raises:
            ConfigError: not even a batch of one fits, or halving is off.
        """
        while True:
            size = min(batch_size, self._most or batch_size)
            try:
                return work(size)
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                self._shrink(size, error)
            clear_device_cache(garbage_collection=True)  # outside the handler, whose traceback holds what was allocated

    def split(self, work: Callable[[slice], Tensor], count: int, *, most: int | None = None) -> Tensor:
        """Call `work` on consecutive slices of `count` items, at most `most` items in each, and concatenate the results along dimension 0.

        Raises:
            ConfigError: not even a batch of one fits, or halving is off.
        """

        def parts(size: int) -> Tensor:
            if size == count:
                return work(slice(0, count))
            return torch.cat([work(slice(start, min(start + size, count))) for start in range(0, count, size)])

        return self.run(parts, min(count, most or count))

    def _shrink(self, size: int, error: RuntimeError) -> None:
        if not self._halve or size == 1:
            raise ConfigError(
                f"{self._what}: a batch of {size} does not fit into memory; try training.gradient_checkpointing, weights = 'bfloat16', "
                "hardware.text_encoders = 'free', hardware.decoding = 'sliced', or a smaller picture"
            ) from error
        self._most = (size + 1) // 2
        self._say(f"{self._what}: a batch of {size} does not fit into memory; continuing with batches of {self._most}")
