"""The tables of a comparison, as Markdown and as the page shows them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from d3po.evaluation.paired import Paired
from d3po.evaluation.win_rate import Interval
from d3po.experiments.findings import COSTS, FIGURES, Summary

NOTHING, LINE = "-", "\n"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A title, how to read it, and cells of text, of several lines where that reads better."""

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
    """Each label's final figures."""
    gains = list(summaries[0].gains)
    return Table(
        title="Results",
        reading="Mean over seeds [95 % interval, Student's t, cut to what is possible; none where all seeds gave one value]. Win rate is over the "
        "base model on held-out prompts, 0.5 is no change; score is in the reward's own unit; diversity kept is a share of the base model's."
        + (" Held-out rewards are in standard deviations of the base model's pictures; 0 is no change." if gains else "")
        + " Guards that spoke are named with the number of cells in which they did; of cells that one stopped, the result is the last policy it let pass.",
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
    """Each label against the baseline, seed by seed."""
    seeds = max(each.seeds for each in summaries)
    return Table(
        title=f"Differences to {baseline}",
        reading="Mean difference over seeds that both have [95 % interval]; p of the paired t test / of the exact sign-flip test. Cells of a seed share "
        "prompts and noise, so the difference is taken within it. "
        f"With {seeds} seeds the sign-flip p cannot fall below {min(1.0, 2 / 2**seeds):.3g}. The p values are not corrected for how many labels "
        "are compared: of twenty without any effect one falls below 0.05.",
        header=["", *FIGURES],
        rows=[[each.label, *(_paired(each.differences[name]) for name in FIGURES)] for each in summaries if each.label != baseline],
    )


def cost_table(summaries: Sequence[Summary]) -> Table:
    """What each label took."""
    return Table(
        title="Cost",
        reading="Means over seeds, evaluation not counted. A network row is one image at one denoising step in the network, doubled by guidance; sampling, "
        "passes of the reference and training are counted. Minutes depend on what else the machine did.",
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
