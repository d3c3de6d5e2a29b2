"""What a comparison of objectives has shown: its rows, and what they come to over seeds."""

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from d3po.escaping import spreadsheet_cell
from d3po.evaluation.paired import ANYWHERE, SHARE, Bounds, Paired, paired, t_interval
from d3po.evaluation.win_rate import Interval


@dataclass(frozen=True, kw_only=True)
class Row:
    """One cell after some rounds; 0 rounds are the base model. What was spent is spent up to there, evaluation not counted."""

    label: str
    reward: str
    seed: int
    rounds: int
    is_result: bool
    """The last round that counts: the budget is used up, or a guard stopped the cell."""
    is_stopped: bool
    """A guard has stopped the cell."""
    guards: str
    """Names of the guards that spoke up to there, each once, with spaces between."""
    labels: int
    images: int
    network_rows: int
    seconds: float
    win_rate: float
    score: float
    diversity_kept: float
    checkerboard_ratio: float
    subject_accuracy: float | None
    gain: float
    """Of the trained reward: how far its mean has moved, in standard deviations of the base model's pictures."""
    held_out: Mapping[str, float]
    """Mean of each reward that nothing was trained for."""
    held_out_gain: Mapping[str, float]
    """Likewise for these."""


FIGURES: dict[str, Callable[[Row], float | None]] = {
    "win rate": lambda row: row.win_rate,
    "score": lambda row: row.score,
    "diversity kept": lambda row: row.diversity_kept,
    "subject accuracy": lambda row: row.subject_accuracy,
}
"""What results are compared by."""

BOUNDS: dict[str, Bounds] = {"win rate": SHARE, "diversity kept": (0.0, math.inf), "subject accuracy": SHARE}
"""Those of them that lie between bounds; the others may lie anywhere."""

COSTS: dict[str, Callable[[Row], float]] = {
    "rounds": lambda row: row.rounds,
    "labels": lambda row: row.labels,
    "images": lambda row: row.images,
    "network rows": lambda row: row.network_rows,
    "minutes": lambda row: row.seconds / 60,
}
"""What they took."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One label's results for one reward, over seeds."""

    label: str
    seeds: int
    stopped: int
    """Cells that a guard stopped."""
    guards: Mapping[str, int]
    """In how many cells each guard spoke, that only warned too."""
    figures: Mapping[str, Interval | None]
    """None where the model has no such figure."""
    differences: Mapping[str, Paired | None]
    """To the baseline, over the seeds that both have; None of the baseline itself, or where they share no seed."""
    costs: Mapping[str, float]
    """Means over seeds."""
    gains: Mapping[str, Interval]
    """Of the held-out rewards, in standard deviations of the base model's pictures."""


def summaries(rows: Sequence[Row], reward: str, *, labels: Sequence[str], baseline: str) -> list[Summary]:
    """What the results for a reward come to, of the labels that have any, in the order of `labels`."""
    results = {
        label: {row.seed: row for row in rows if (row.label, row.reward, row.is_result) == (label, reward, True)} for label in labels
    }
    return [_summary(label, mine, {} if label == baseline else results.get(baseline, {})) for label, mine in results.items() if mine]


def _summary(label: str, mine: Mapping[int, Row], theirs: Mapping[int, Row]) -> Summary:
    rows = list(mine.values())
    shared = sorted(mine.keys() & theirs.keys())
    return Summary(
        label=label,
        seeds=len(rows),
        stopped=sum(row.is_stopped for row in rows),
        guards=Counter(guard for row in rows for guard in row.guards.split()),
        figures={name: _over_seeds([figure(row) for row in rows], BOUNDS.get(name, ANYWHERE)) for name, figure in FIGURES.items()},
        differences={
            name: _paired([figure(mine[seed]) for seed in shared], [figure(theirs[seed]) for seed in shared], BOUNDS.get(name, ANYWHERE))
            for name, figure in FIGURES.items()
        },
        costs={name: math.fsum(cost(row) for row in rows) / len(rows) for name, cost in COSTS.items()},
        gains={name: t_interval([row.held_out_gain[name] for row in rows]) for name in rows[0].held_out_gain},
    )


def _over_seeds(values: Sequence[float | None], within: Bounds) -> Interval | None:
    known = [value for value in values if value is not None]
    return t_interval(known, within=within) if known else None


def _paired(ours: Sequence[float | None], theirs: Sequence[float | None], within: Bounds) -> Paired | None:
    pairs = [(mine, other) for mine, other in zip(ours, theirs, strict=True) if mine is not None and other is not None]
    return paired([mine for mine, _ in pairs], [other for _, other in pairs], within=within) if pairs else None


def to_csv(rows: Sequence[Row]) -> str:
    """comparison.csv: a line for each row, a column for each field, and two for each held-out reward."""
    out = io.StringIO()
    names = list(rows[0].held_out) if rows else []
    plain = [name for name in Row.__dataclass_fields__ if name not in ("held_out", "held_out_gain")]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*plain, *(f"held_out:{name}" for name in names), *(f"held_out_gain:{name}" for name in names)])
    for row in rows:
        values = ["" if (value := getattr(row, name)) is None else value for name in plain]
        values = [spreadsheet_cell(value) if isinstance(value, str) else value for value in values]
        writer.writerow([*values, *(row.held_out[name] for name in names), *(row.held_out_gain[name] for name in names)])
    return out.getvalue()
