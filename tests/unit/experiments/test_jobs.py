"""Processes side by side: all are run, so many at once, and one that fails hinders no other."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from d3po.experiments import jobs
from d3po.experiments.jobs import Job, run_jobs


@dataclass(frozen=True, kw_only=True)
class Small(Job):
    code: str

    def work(self) -> None:
        exec(self.code)


def small(tmp_path: Path, name: str, code: str) -> Small:
    return Small(name=name, run=tmp_path, log=tmp_path / "logs" / name, code=code)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.02)


def test_a_failing_job_hinders_no_other(tmp_path: Path) -> None:
    ended: dict[str, tuple[int, str]] = {}
    most: list[int] = []
    work = [
        small(tmp_path, "bad", "print('one'); raise SystemExit('the reason\\n')"),
        *(small(tmp_path, n, f"print({n!r})") for n in "abc"),
    ]
    run_jobs(
        work,
        at_once=2,
        on_end=lambda job, code: ended.update({job.name: (code, job.last_line())}),
        while_waiting=lambda running: most.append(len(running)),
    )
    assert ended == {"bad": (1, "the reason"), "a": (0, "a"), "b": (0, "b"), "c": (0, "c")}
    assert max(most) == 2


def test_a_job_has_one_thread(tmp_path: Path) -> None:
    job = small(tmp_path, "threads", "import os, torch; print(os.environ['OMP_NUM_THREADS'], torch.get_num_threads())")
    run_jobs([job], at_once=1, on_end=lambda job, code: None, while_waiting=lambda running: None)
    assert job.last_line() == "1 1"


def test_a_job_is_d3po_run(tmp_path: Path) -> None:
    job = Job(name="real", run=tmp_path / "nothing", log=tmp_path / "log")
    codes: list[int] = []
    run_jobs([job], at_once=1, on_end=lambda job, code: codes.append(code), while_waiting=lambda running: None)
    assert codes == [2]
    assert job.last_line().startswith(f"error: {tmp_path / 'nothing'}")


def test_an_interrupted_comparison_leaves_no_process_behind(tmp_path: Path) -> None:
    started: list[jobs.Running] = []

    def interrupt(running: list[Job]) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        end_all = jobs.Running.end_all
        patch.setattr(jobs.Running, "end_all", lambda self: (started.append(self), end_all(self))[1])
        with pytest.raises(KeyboardInterrupt):
            run_jobs(
                [small(tmp_path, "long", "import time; time.sleep(60)")], at_once=1, on_end=lambda job, code: None, while_waiting=interrupt
            )
    ((_, process),) = started[0].processes.values()
    process.join(10)
    assert process.exitcode is not None
