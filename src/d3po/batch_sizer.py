"""Batches that do not fit into memory: halved once and for all, and said once."""

from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor

from d3po.errors import ConfigError

T = TypeVar("T")


class BatchSizer:
    """Knows how many rows of one kind of work fit, and learns it from failures.

    Args:
        what: the work, for the message, such as "sampling".
        say: tells the user.
        halve: whether to halve; if not, running out of memory ends the run.
    """

    def __init__(self, what: str, say: Callable[[str], None], *, halve: bool = True) -> None:
        self._what, self._say, self._halve = what, say, halve
        self._most: int | None = None

    def run(self, work: Callable[[int], T], rows: int) -> T:
        """`work(size)` with as many rows at a time as fit, at most `rows`; `work` starts over after a failure.

        Raises:
            ConfigError: not even one row fits.
        """
        while True:
            size = min(rows, self._most or rows)
            try:
                return work(size)
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                self._shrink(size, error)
            clear_device_cache(garbage_collection=True)  # outside the handler, whose traceback holds what was allocated

    def split(self, work: Callable[[slice], Tensor], rows: int, *, most: int | None = None) -> Tensor:
        """`work` on consecutive parts of `rows` rows, at most `most` in each, its results one below the other."""

        def parts(size: int) -> Tensor:
            if size == rows:
                return work(slice(0, rows))
            return torch.cat([work(slice(start, min(start + size, rows))) for start in range(0, rows, size)])

        return self.run(parts, min(rows, most or rows))

    def _shrink(self, size: int, error: RuntimeError) -> None:
        if not self._halve or size == 1:
            many = "one row" if size == 1 else f"{size} rows"
            raise ConfigError(
                f"{self._what}: {many} at a time do not fit into memory; try training.gradient_checkpointing, weights = 'bfloat16', "
                "hardware.text_encoders = 'free', hardware.decoding = 'sliced', or a smaller picture"
            ) from error
        self._most = (size + 1) // 2
        self._say(f"{self._what}: {size} rows at a time do not fit into memory; going on with {self._most}")
