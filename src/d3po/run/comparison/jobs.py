"""Runs the cells: each as `d3po run` in a process of its own, so many at once; one that fails does not stop the others."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

POLL_SECONDS = 0.3
GRACE_SECONDS = 10.0
"""That a process has to end in when the comparison is interrupted."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run that is to be brought to its end."""

    name: str
    run: Path
    log: Path
    minutes: float = 0.0

    def command(self) -> list[str]:
        """As a process is started with it."""
        return [sys.executable, "-m", "d3po", "run", str(self.run), "--minutes", str(self.minutes)]

    def last_words(self) -> str:
        """The last line that it wrote."""
        lines = self.log.read_text(errors="replace").split("\n") if self.log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")


def started(job: Job) -> "subprocess.Popen[bytes]":
    """The job's process, with one thread for torch; what it writes goes to its log."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("wb") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(job.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment)


@dataclass(kw_only=True)
class Running:
    """Processes at work."""

    processes: dict[str, tuple[Job, subprocess.Popen[bytes]]] = field(default_factory=dict)

    def begin(self, job: Job) -> None:
        """Start a job's process."""
        self.processes[job.name] = (job, started(job))

    def ended(self) -> Iterator[tuple[Job, int]]:
        """Jobs that have ended since, with their exit codes."""
        for name, (job, process) in list(self.processes.items()):
            code = process.poll()
            if code is not None:
                del self.processes[name]
                yield job, code

    def end_all(self) -> None:
        """Ask what still runs to end, and make it end if it does not."""
        for _, process in self.processes.values():
            process.terminate()
        for _, process in self.processes.values():
            try:
                process.wait(timeout=GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def _working() -> Generator[Running, None, None]:
    running = Running()
    try:
        yield running
    finally:
        running.end_all()


def run_jobs(jobs: Iterable[Job], *, at_once: int, on_end: Callable[[Job, int], None], while_waiting: Callable[[list[Job]], None]) -> None:
    """Run all jobs; `on_end` is told each one's exit code, `while_waiting` again and again what is running."""
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
