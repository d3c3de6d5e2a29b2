"""Runs the cells of a comparison: each as `d3po run` in a separate process, several at once. A cell that fails does not stop the others.

The processes are forked from one that has already loaded torch and the model libraries. Loading them would take a third of a small cell's time.
"""

import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.3
GRACE_SECONDS = 10.0
"""How long a process may take to end when the comparison is interrupted."""

PRELOADED_MODULES = ["d3po.run.loop", "d3po.models.load", "d3po.models.stable_diffusion", "diffusers.pipelines.stable_diffusion"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run that is to be run to its end."""

    name: str
    run: Path
    log: Path
    minutes: float = 0.0

    def arguments(self) -> list[str]:
        """The arguments of `d3po`."""
        return ["run", str(self.run), "--minutes", str(self.minutes)]

    def work(self) -> None:
        """Run the command; this is all that the job's process does."""
        sys.argv = ["d3po", *self.arguments()]
        runpy.run_module("d3po", run_name="__main__")

    def last_line(self) -> str:
        """The last line of its output."""
        lines = self.log.read_text(errors="replace").split("\n") if self.log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")


def started(job: Job) -> BaseProcess:
    """Start the job's process."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    forked = "forkserver" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if forked else "spawn")
    if forked:
        context.set_forkserver_preload(PRELOADED_MODULES)
    process: BaseProcess = context.Process(target=_work, args=(job,), name=job.name)
    process.start()
    return process


def _work(job: Job) -> None:
    """The body of the job's process: torch uses one thread, and all output goes to the job's log."""
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    with Path(os.devnull).open("rb") as nothing, job.log.open("wb") as log:
        os.dup2(nothing.fileno(), 0)
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    job.work()


@dataclass(kw_only=True)
class Running:
    """The running processes."""

    processes: dict[str, tuple[Job, BaseProcess]] = field(default_factory=dict[str, tuple[Job, BaseProcess]])

    def begin(self, job: Job) -> None:
        """Start a job's process."""
        self.processes[job.name] = (job, started(job))

    def ended(self) -> Iterator[tuple[Job, int]]:
        """The jobs that have ended since the last call, with their exit codes."""
        for name, (job, process) in list(self.processes.items()):
            if process.exitcode is not None:
                del self.processes[name]
                yield job, process.exitcode

    def end_all(self) -> None:
        """Terminate all running processes, and kill those that do not end in time."""
        for _, process in self.processes.values():
            process.terminate()
        for _, process in self.processes.values():
            process.join(GRACE_SECONDS)
            if process.exitcode is None:
                process.kill()


@contextmanager
def _working() -> Generator[Running, None, None]:
    running = Running()
    try:
        yield running
    finally:
        running.end_all()


def run_jobs(jobs: Iterable[Job], *, at_once: int, on_end: Callable[[Job, int], None], while_waiting: Callable[[list[Job]], None]) -> None:
    """Run all jobs.

    Args:
        jobs: the jobs.
        at_once: how many run at the same time.
        on_end: called with each job and its exit code when it ends.
        while_waiting: called regularly with the running jobs.
    """
    waiting = iter(jobs)
    with _working() as running:
        while True:
            for job, code in running.ended():
                on_end(job, code)
            while len(running.processes) < at_once and (job := next(waiting, None)) is not None:
                running.begin(job)
            if not running.processes:
                return
            while_waiting([job for job, _ in running.processes.values()])
            time.sleep(POLL_SECONDS)
