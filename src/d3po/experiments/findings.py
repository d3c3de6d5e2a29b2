"""The results of a comparison: a row for each cell and round, and their summaries over seeds."""

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
    """The results of one cell after a number of rounds; 0 rounds is the base model. Costs are the sums up to that round, without evaluation."""

    label: str
    reward: str
    seed: int
    rounds: int
    is_result: bool
    """Whether this is the cell's result: its last round that counts, because the budget is used up or a guard stopped the cell."""
    is_stopped: bool
    """Whether a guard stopped the cell."""
    guards: str
    """The names of the guards that fired up to that round, each once, separated by spaces."""
    labels: int
    images: int
    network_rows: int
    """Forward passes of the network, as counted while it ran."""
    seconds: float
    win_rate: float
    score: float
    diversity_kept: float
    checkerboard_ratio: float
    subject_accuracy: float | None
    gain: float
    """The change in the mean of the trained reward, in standard deviations over the base model's pictures."""
    held_out: Mapping[str, float]
    """The mean of each held-out reward, by its name."""
    held_out_gain: Mapping[str, float]
    """The change in the mean of each held-out reward, in standard deviations over the base model's pictures."""


FIGURES: dict[str, Callable[[Row], float | None]] = {
    "win rate": lambda row: row.win_rate,
    "score": lambda row: row.score,
    "diversity kept": lambda row: row.diversity_kept,
    "subject accuracy": lambda row: row.subject_accuracy,
}
"""The figures by which results are compared."""

BOUNDS: dict[str, Bounds] = {"win rate": SHARE, "diversity kept": (0.0, math.inf), "subject accuracy": SHARE}
"""The bounds of those figures that have any."""

COSTS: dict[str, Callable[[Row], float]] = {
    "rounds": lambda row: row.rounds,
    "labels": lambda row: row.labels,
    "images": lambda row: row.images,
    "forward passes": lambda row: row.network_rows,
    "minutes": lambda row: row.seconds / 60,
}
"""The costs of a result."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One label's results for one reward, over seeds."""

    label: str
    seeds: int
    stopped: int
    """The number of cells that a guard stopped."""
    guards: Mapping[str, int]
    """The number of cells in which each guard fired, including guards that only warned."""
    figures: Mapping[str, Interval | None]
    """The mean of each figure over seeds; None where the model has no such figure."""
    differences: Mapping[str, Paired | None]
    """The difference of each figure to the baseline, over the seeds that both have. None for the baseline itself, or if they share no seed."""
    costs: Mapping[str, float]
    """The mean of each cost over seeds."""
    gains: Mapping[str, Interval]
    """The mean gain of each held-out reward, in standard deviations over the base model's pictures."""


def summaries(rows: Sequence[Row], reward: str, *, labels: Sequence[str], baseline: str) -> list[Summary]:
    """Summarise the results for a reward over seeds, for the labels that have results, in the order of `labels`."""
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
    """Write rows as CSV, with a column for each field and two for each held-out reward."""
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
