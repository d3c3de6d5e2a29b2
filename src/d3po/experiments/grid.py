"""Runs a whole comparison: does the cells that are not done yet, and writes the results."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from d3po.artifacts.files import write_atomically
from d3po.experiments.budget import rounds_that_fit, work_of
from d3po.experiments.cells import Cell, by_label, cells_of, make_folder
from d3po.experiments.jobs import Job, run_jobs
from d3po.experiments.results import HeldOutReward, last_round, rows_of
from d3po.experiments.scales import scales_of
from d3po.experiments.spec import Spec, load_spec
from d3po.experiments.writing import KEPT_SPEC, Done, write_page, write_tables
from d3po.progress import Bar, Narrator
from d3po.run.evaluate.phase import read_evaluation
from d3po.run.folder import RunFolder, label_of, locked
from d3po.run.loop import is_time_up, read_stop, summary
from d3po.run.opened import OpenRun, open_run


def plan_lines(file: Path, narrator: Narrator) -> list[str]:
    """Estimate what a comparison takes, in lines of text, one for each label. The time comes from measured steps."""
    spec = load_spec(file)
    cells = cells_of(spec, narrator.say)
    scales = scales_of(cells, narrator, measure=True)
    each = len(spec.rewards) * len(spec.seeds)
    lines = [f"{'':<20} cells  rounds  labels  images  forward passes  with gradient  minutes a cell"]
    total = 0.0
    for label, cell in by_label(cells).items():
        scale = scales[label]
        rounds = rounds_that_fit(spec.budget, cell.config, scale.shape, label=label)
        if rounds is None:
            lines.append(f"{label:<20} {each:>5}  as many as fit into {spec.budget.minutes:g} minutes")
            continue
        work = work_of(cell.config, scale.shape, rounds)
        total += each * scale.seconds(work)
        lines.append(
            f"{label:<20} {each:>5}  {rounds:>6}  {work.labels:>6,}  {work.images:>6,}  {work.forwards:>14,}  {work.training_forwards:>13,}  "
            f"{scale.seconds(work) / 60:>14.1f}"
        )
    if total:
        lines.append(
            f"all {len(cells)} cells one after another: {total / 60:.0f} min, estimated from measured steps on this machine, without loading"
        )
    return lines


def compare(file: Path, path: Path, narrator: Narrator, *, at_once: int) -> dict[str, str]:
    """Run every cell of a comparison to its end and write the results. Return the last line of output of each cell that failed, by the cell's name.

    Args:
        file: the file that describes the comparison.
        path: the comparison's folder.
        narrator: shows messages and progress.
        at_once: how many cells run at the same time.

    Raises:
        ConfigError: a cell cannot be made, or not even one of its rounds fits into the budget; nothing was run.
        RewardError: a held-out reward cannot be loaded; nothing was run.
        RunFolderError: another process works in this folder.
    """
    spec = load_spec(file)
    cells = cells_of(spec, narrator.say)
    scales = scales_of(cells, narrator, measure=False)
    rounds = {label: rounds_that_fit(spec.budget, cell.config, scales[label].shape, label=label) for label, cell in by_label(cells).items()}
    path.mkdir(parents=True, exist_ok=True)
    with locked(path):
        write_atomically(path / KEPT_SPEC, file.read_bytes())
        held_out = {name: HeldOutReward(name, path / "scores", narrator) for name in spec.held_out_rewards}
        return _Grid(spec=spec, path=path, cells=cells, rounds=rounds, narrator=narrator, held_out=held_out).run(at_once)


@dataclass(kw_only=True)
class _Grid:
    """A comparison that is being run in its folder."""

    spec: Spec
    path: Path
    cells: Sequence[Cell]
    rounds: dict[str, int | None]
    """The number of rounds that the budget allows, by label; None for a budget in minutes."""
    narrator: Narrator
    held_out: dict[str, HeldOutReward]
    done: dict[str, Done] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    reported: set[Path] = field(default_factory=set)
    """The records of evaluations that were already reported."""

    def run(self, at_once: int) -> dict[str, str]:
        by_name = {cell.name: cell for cell in self.cells}
        for cell in self.cells:
            make_folder(cell, self.path, rounds=self.rounds[cell.label])
            if self._is_done(cell):
                self._take(cell)
        waiting = [self._job(cell) for cell in self.cells if cell.name not in self.done]
        with self.narrator.bar("comparing", total=len(self.cells)) as bar:
            bar.advance(len(self.done), "cells")

            def on_end(job: Job, code: int) -> None:
                self._report(job)
                if code == 0 and self._is_done(by_name[job.name]):
                    self._take(by_name[job.name])
                    self._write_tables()
                else:
                    self.failed[job.name] = job.last_line()
                    self.narrator.say(f"{job.name}: failed: {job.last_line()} (full output: {job.log})")
                bar.advance(1, "cells")

            run_jobs(waiting, at_once=at_once, on_end=on_end, while_waiting=lambda jobs: self._show(jobs, bar))
        self._write_tables()
        write_page(self.spec, self.path, self._in_order(), self.failed)
        return self.failed

    def _job(self, cell: Cell) -> Job:
        run = cell.folder(self.path).path
        return Job(name=cell.name, run=run, log=self.path / "logs" / f"{cell.name}.log", minutes=self.spec.budget.minutes or 0.0)

    def _is_done(self, cell: Cell) -> bool:
        """Whether the cell's run is finished."""
        folder, rounds = cell.folder(self.path), self.rounds[cell.label]
        if not folder.report.exists():
            return False
        with closing(open_run(folder, self.narrator)) as run:
            if read_stop(run):
                return True
            enough = is_time_up(run, self.spec.budget.minutes or 0.0) if rounds is None else run.trained_rounds() >= rounds
            return enough and folder.evaluation(label_of(last_round(run, rounds))).exists()

    def _take(self, cell: Cell) -> None:
        """Read the results of a finished cell."""
        with closing(open_run(cell.folder(self.path), self.narrator)) as run:
            if self.rounds[cell.label] is None:
                run.folder.change({"rounds": str(max(1, run.trained_rounds()))})  # as many as fitted into the time
            rows = rows_of(cell, run, self.held_out, rounds=self.rounds[cell.label])
            self.done[cell.name] = Done(cell=cell, rows=rows, folder=run.folder)

    def _in_order(self) -> list[Done]:
        return [self.done[cell.name] for cell in self.cells if cell.name in self.done]

    def _write_tables(self) -> None:
        write_tables(self.spec, self.path, self._in_order(), self.failed)

    def _show(self, jobs: Sequence[Job], bar: Bar) -> None:
        for job in jobs:
            self._report(job)
        bar.advance(0, "cells; running: " + ", ".join(job.name for job in jobs))

    def _report(self, job: Job) -> None:
        """Report the figures of new evaluations."""
        run: OpenRun | None = None
        for path in sorted((job.run / "evaluations").glob("round-*.json")):
            if path not in self.reported:
                self.reported.add(path)
                run = run or open_run(RunFolder(path=job.run), self.narrator)
                rounds = int(path.stem.removeprefix("round-")) + 1
                self.narrator.say(f"{job.name}: {path.stem}: {summary(read_evaluation(run, rounds))}")
