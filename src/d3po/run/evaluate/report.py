"""Writes the report page of a run."""

import platform
from importlib.metadata import version
from pathlib import Path

from d3po.annotation.agreement import agreement
from d3po.artifacts.files import write_atomically
from d3po.evaluation.report import PictureRow, Point, Report, render
from d3po.evaluation.win_rate import Interval
from d3po.preferences.records import Vote
from d3po.run.evaluate.phase import EvaluationResult, held_out_pictures, read_evaluation
from d3po.run.folder import BASE, label_of, without_parents
from d3po.run.opened import OpenRun
from d3po.version import __version__

LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "peft", "safetensors", "numpy")
SHOWN_PROMPTS, SHOWN_IMAGES = 12, 4


def write_report(run: OpenRun, rounds: int, stopped: str | None) -> Path:
    """Write report.html for the policy after `rounds` rounds, and before-after.png beside it. `stopped` is why a guard ended the run, if one did."""
    evaluated = [read_evaluation(run, r) for r in range(rounds + 1) if run.folder.evaluation(label_of(r)).exists()]
    result = evaluated[-1]
    before, after = held_out_pictures(run, BASE), held_out_pictures(run, label_of(result.rounds))
    rows = [
        PictureRow(prompt=prompt, before=before[p][:SHOWN_IMAGES], after=after[p][:SHOWN_IMAGES])
        for p, prompt in enumerate(run.folder.held_out()[:SHOWN_PROMPTS])
        if p < len(before)
    ]
    report = Report(
        title=run.folder.path.name,
        reward=without_parents(run.config.feedback.reward),
        judged_by_people=run.judged_by_people,
        points=[_point(evaluation) for evaluation in evaluated],
        updates=run.folder.read_metrics(),
        rows=rows,
        stopped=stopped,
        alarms=sorted({(entry.round or 0, entry.body["guard"], entry.body["message"]) for entry in run.store.journal.read(kind="alarm")}),
        blind=(result.people, result.people_answers) if result.people else None,
        agreement=_agreement_by_round(run, result.rounds),
        config=run.folder.public_settings(),
        versions=versions(),
        seed=run.config.seed,
    )
    page, grid = render(report)
    write_atomically(run.folder.report, page)
    write_atomically(run.folder.path / "before-after.png", grid)
    return run.folder.report


def versions() -> dict[str, str]:
    """The versions of everything on which a result may depend."""
    return {
        "d3po": __version__,
        **{name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _agreement_by_round(run: OpenRun, rounds: int) -> dict[int, Interval | None]:
    """How well people agreed on each trained round's pictures. Empty if each question was asked only once."""
    if run.config.feedback.source != "human" or run.config.feedback.overlap == 1:
        return {}
    return {round: _alpha(run.store.batches.votes(round) or []) for round in range(rounds)}


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
        people=evaluation.people,
    )
