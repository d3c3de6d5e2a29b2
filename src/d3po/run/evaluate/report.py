"""Gathers a run's results into its report page."""

import platform
from importlib.metadata import version
from pathlib import Path

from d3po import __version__
from d3po.annotation.agreement import agreement
from d3po.artifacts.files import write_atomically
from d3po.evaluation.report import PictureRow, Point, Report, render
from d3po.evaluation.win_rate import Interval
from d3po.preferences.records import Vote
from d3po.run.evaluate.blind import blind_result
from d3po.run.evaluate.phase import EvaluationResult, held_out_pictures, label_of, read_evaluation
from d3po.run.workbench import BASE, Workbench

LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "peft", "safetensors", "numpy")
SHOWN_PROMPTS, SHOWN_IMAGES = 12, 4


def write_report(bench: Workbench, rounds: int, stopped: str | None) -> Path:
    """Write report.html for the policy after `rounds` rounds, and the before/after grid as a PNG beside it."""
    evaluated = [read_evaluation(bench, r) for r in range(rounds + 1) if bench.folder.evaluation(label_of(r)).exists()]
    result = evaluated[-1]
    before, after = held_out_pictures(bench, BASE), held_out_pictures(bench, label_of(result.rounds))
    rows = [
        PictureRow(prompt=prompt, before=before[p][:SHOWN_IMAGES], after=after[p][:SHOWN_IMAGES])
        for p, prompt in enumerate(bench.folder.held_out()[:SHOWN_PROMPTS])
        if p < len(before)
    ]
    report = Report(
        title=bench.folder.path.name,
        judge=bench.config.feedback.reward,
        points=[_point(evaluation) for evaluation in evaluated],
        updates=bench.folder.read_metrics(),
        rows=rows,
        stopped=stopped,
        alarms=sorted({(entry.round or 0, entry.body["guard"], entry.body["message"]) for entry in bench.store.journal.read(kind="alarm")}),
        blind=blind_result(bench, result.rounds),
        agreement=_agreement_by_round(bench, result.rounds),
        config=bench.folder.public_settings(),
        versions=versions(),
        seed=bench.config.seed,
    )
    page, grid = render(report)
    write_atomically(bench.folder.report, page)
    write_atomically(bench.folder.path / "before-after.png", grid)
    return bench.folder.report


def versions() -> dict[str, str]:
    """Of everything that a result may depend on."""
    return {
        "d3po": __version__,
        **{name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _agreement_by_round(bench: Workbench, rounds: int) -> dict[int, Interval | None]:
    """How far people agreed on each trained round's pictures, where several were asked about each question."""
    if bench.config.feedback.source != "human" or bench.config.feedback.overlap == 1:
        return {}
    return {round: _alpha(bench.store.batches.votes(round) or []) for round in range(rounds)}


def _alpha(votes: list[Vote]) -> Interval | None:
    found = agreement(votes)
    if found.alpha is None or found.low is None or found.high is None:
        return None
    return Interval(value=found.alpha, low=found.low, high=found.high)


def _point(evaluation: EvaluationResult) -> Point:
    return Point(
        rounds=evaluation.rounds,
        comparisons=evaluation.comparisons,
        win_rate=evaluation.win_rate,
        mean_score=evaluation.mean_score,
        diversity_kept=evaluation.diversity_kept,
        checkerboard_ratio=evaluation.checkerboard_ratio,
        subject_accuracy=evaluation.subject_accuracy,
        held_out_win_rate=evaluation.held_out_win_rate,
    )
