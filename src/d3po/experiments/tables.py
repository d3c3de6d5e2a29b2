"""Builds the tables of a comparison, for Markdown and for the page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from d3po.evaluation.paired import Paired
from d3po.evaluation.win_rate import Interval
from d3po.experiments.findings import COSTS, FIGURES, Summary

NOTHING, LINE = "-", "\n"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with a title, an explanation of how to read it, and cells of text that may have several lines."""

    title: str
    reading: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table in Markdown."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        table = "\n".join(f"| {' | '.join(cell.replace('|', '/').replace(LINE, ' ') for cell in line)} |" for line in lines)
        return f"### {self.title}\n\n{table}\n\n{self.reading}\n"


def result_table(summaries: Sequence[Summary]) -> Table:
    """The table of each label's final figures."""
    gains = list(summaries[0].gains)
    return Table(
        title="Results",
        reading="Mean over seeds [95 % interval, Student's t, cut to possible values; none where all seeds gave the same value]. Win rate is over the "
        "base model on held-out prompts, 0.5 is no change; score is in the reward's unit; diversity kept is a share of the base model's."
        + (" Held-out rewards are in standard deviations over the base model's pictures; 0 is no change." if gains else "")
        + " Guards that fired are named with the number of cells in which they did. The result of a stopped cell is the last policy that passed the guards.",
        header=["", "seeds", *FIGURES, *gains, "guards", "stopped"],
        rows=[
            [
                each.label,
                str(each.seeds),
                *(_interval(each.figures[name]) for name in FIGURES),
                *(_interval(each.gains[name], sign="+") for name in gains),
                f",{LINE}".join(f"{guard} {cells}" for guard, cells in sorted(each.guards.items())) or NOTHING,
                str(each.stopped or NOTHING),
            ]
            for each in summaries
        ],
    )


def difference_table(summaries: Sequence[Summary], baseline: str) -> Table:
    """The table of each label's differences to the baseline, paired by seed."""
    seeds = max(each.seeds for each in summaries)
    return Table(
        title=f"Differences to {baseline}",
        reading="Mean difference over the seeds that both have [95 % interval]; p of the paired t test / of the exact sign-flip test. Cells with the same "
        "seed share prompts and noise, so differences are taken within a seed. "
        f"With {seeds} seeds the sign-flip p cannot fall below {min(1.0, 2 / 2**seeds):.3g}. The p values are not corrected for multiple comparisons: "
        "of twenty labels without any effect, one falls below 0.05 on average.",
        header=["", *FIGURES],
        rows=[[each.label, *(_paired(each.differences[name]) for name in FIGURES)] for each in summaries if each.label != baseline],
    )


def cost_table(summaries: Sequence[Summary]) -> Table:
    """The table of each label's costs."""
    return Table(
        title="Cost",
        reading="Means over seeds, without evaluation. A forward pass is one image at one denoising step in the network, doubled by guidance; those of "
        "sampling, of the reference and of training are counted. Minutes depend on what else the machine did.",
        header=["", *COSTS],
        rows=[[each.label, *(f"{each.costs[name]:,.1f}".removesuffix(".0") for name in COSTS)] for each in summaries],
    )


def _interval(interval: Interval | None, sign: str = "") -> str:
    if interval is None or math.isnan(interval.value):
        return NOTHING
    if not interval.has_ends:
        return f"{interval.value:{sign}.3f}"
    return f"{interval.value:{sign}.3f}{LINE}[{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def _paired(found: Paired | None) -> str:
    if found is None:
        return NOTHING
    return f"{_interval(found.difference, sign='+')}{LINE}p {_p(found.t_p)} / {_p(found.sign_flip_p)}"


def _p(value: float) -> str:
    return NOTHING if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"
