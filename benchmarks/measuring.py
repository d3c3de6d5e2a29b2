"""Helpers of all benchmarks: interleaved timing, figures with targets, and runs in temporary folders."""

import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from d3po.config import RunConfig, override
from d3po.progress import Narrator
from d3po.run.folder import create_run
from d3po.run.opened import open_run
from d3po.run.prompts import choose_prompts
from d3po.run.session import Session

Measure = Callable[[int, str], "list[Figure]"]
"""Measures figures, given the number of repeats and the model."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One ratio, measured several times, with the value that it should not exceed."""

    name: str
    what: str
    values: list[float]
    target: float
    """The largest value that the median should have."""
    behind: str
    """The medians of numerator and denominator."""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def met(self) -> bool:
        return self.median <= self.target


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, of rows of which the first is the heading."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{' --- |' * len(rows[0])}", *lines[1:]])


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(a: Callable[[], object], b: Callable[[], object], repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of a and of b, run in turn (a b a b ...) after one unmeasured call of each, so that both are affected when the machine is slow for a while."""
    a()
    b()
    times = [(seconds(a), seconds(b)) for _ in range(repeats)]
    return [first for first, _ in times], [second for _, second in times]


def ratio_figure(
    name: str, what: str, ours: list[float], other: list[float], *, target: float, labels: tuple[str, str], unit: str = "s"
) -> Figure:
    """Make the figure of the ratios of `ours` to `other`, value by value."""
    medians = zip(labels, (statistics.median(ours), statistics.median(other)), strict=True)
    return Figure(
        name=name,
        what=what,
        values=[a / b for a, b in zip(ours, other, strict=True)],
        target=target,
        behind=", ".join(f"{label} {median:.4g} {unit}" for label, median in medians),
    )


@contextmanager
def opened_run(settings: dict[str, str], model: str) -> Generator[Session, None, None]:
    """Open a new run in a temporary folder. `settings` are dotted keys with TOML values."""
    prompts, held_out = choose_prompts(None, None, skip_empty=False)
    config = override(RunConfig(model=model), {"evaluation.prompts": "1", **settings}, where="benchmarks")
    with tempfile.TemporaryDirectory(prefix="d3po-benchmark-") as directory:
        folder = create_run(Path(directory) / "run", config, prompts=prompts, held_out=held_out)
        session = Session(open_run(folder, Narrator(Console(quiet=True)), config=config))
        try:
            yield session
        finally:
            session.close()
