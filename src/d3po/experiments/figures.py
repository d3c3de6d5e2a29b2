"""Draws the figures of a comparison for one reward: learning curves, over-optimisation curves, and pictures."""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from d3po.evaluation.drawing import INK, titled
from d3po.evaluation.paired import ANYWHERE, SHARE, Bounds, t_interval
from d3po.evaluation.win_rate import NO_CHANGE
from d3po.experiments.findings import Row

Value = Callable[[Row], float]
SHADES = [matplotlib.colormaps["tab20"](place) for place in (*range(2, 20, 2), *range(3, 20, 2))]
"""The colours of all labels except the baseline, which is drawn in `INK`."""
MARKS = "osv^DPX<>dph"
WIDTH = 9.5
"""The width of a figure in inches."""
BANDS = 5
"""The most labels whose interval bands can be told apart. With more, only the last interval is drawn, as a bar."""
GUIDE = {"color": "#9a9aa5", "lw": 0.8, "ls": ":", "zorder": 0}
"""The style of the lines that mark no change."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The curve of one label: means over seeds after each round. A cell that a guard stopped keeps its last values."""

    x: Sequence[float]
    """Means over seeds."""
    y: Sequence[float]
    """Means over seeds."""
    low: Sequence[float]
    high: Sequence[float]
    """The ends of Student's 95 % interval of the mean of y; nan where there is none (see `t_interval`), as for the base model."""


def curve(rows: Sequence[Row], x: Value, y: Value, *, within: Bounds = ANYWHERE) -> Curve:
    """Compute the curve of one label from its rows for one reward. The intervals of y are cut to the bounds `within`."""
    by_seed: dict[int, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.rounds):
        by_seed.setdefault(row.seed, []).append(row)
    rounds = sorted({row.rounds for row in rows})
    newest = [[max((row for row in mine if row.rounds <= r), key=lambda row: row.rounds) for mine in by_seed.values()] for r in rounds]
    values = [t_interval([y(row) for row in at], within=within) for at in newest]
    return Curve(
        x=[float(np.mean([x(row) for row in at])) for at in newest],
        y=[mean.value for mean in values],
        low=[mean.low for mean in values],
        high=[mean.high for mean in values],
    )


def learning_figure(rows: Mapping[str, Sequence[Row]], baseline: str) -> Figure:
    """Draw win rate and gain in the trained reward against labels and against forward passes. `rows` are those of one reward, by label."""
    figure = Figure(figsize=(WIDTH, 6.2 + _legend_height(rows)), layout="constrained")
    panels = figure.subplots(2, 2, sharey="row")
    ways: list[tuple[str, Value, float, Bounds]] = [
        ("Win rate over the base model", lambda row: row.win_rate, NO_CHANGE, SHARE),
        ("Trained reward, in base spreads", lambda row: row.gain, 0.0, ANYWHERE),
    ]
    for line, (name, y, still, within) in enumerate(ways):
        for axes, (unit, x) in zip(
            panels[line], (("labels", lambda row: row.labels), ("forward passes", lambda row: row.network_rows)), strict=True
        ):
            axes.axhline(still, **GUIDE)
            _draw(axes, {label: curve(mine, x, y, within=within) for label, mine in rows.items()}, baseline, band=True)
            titled(axes, name, unit)
            axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 5))
    panels[0, 0].set_ylim(min(0.4, *(row.win_rate - 0.02 for mine in rows.values() for row in mine)), 1.02)
    _legend(figure, panels[0, 0], rows)
    return figure


def trade_figure(rows: Mapping[str, Sequence[Row]], baseline: str) -> Figure:
    """Draw each held-out reward, and diversity, against the trained reward. `rows` are those of one reward, by label."""
    held_out = list(next(iter(rows.values()))[0].held_out_gain)
    ways: list[tuple[str, Value, float]] = [(name, lambda row, name=name: row.held_out_gain[name], 0.0) for name in held_out]
    ways.append(("Diversity kept", lambda row: row.diversity_kept, 1.0))
    columns = 2 if len(ways) in (1, 2, 4) else 3
    lines = math.ceil(len(ways) / columns)
    figure = Figure(figsize=(WIDTH, 3.1 * lines + _legend_height(rows)), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False)
    for axes, (name, y, still) in zip(panels.flat, ways, strict=False):
        axes.axhline(still, **GUIDE)
        axes.axvline(0.0, **GUIDE)
        _draw(axes, {label: curve(mine, lambda row: row.gain, y) for label, mine in rows.items()}, baseline, band=False)
        titled(axes, name, "trained reward, in base spreads")
        axes.ticklabel_format(useOffset=False)
    for axes in panels.flat[len(ways) :]:
        axes.set_axis_off()
    _legend(figure, panels[0, 0], rows)
    return figure


def picture_figure(prompts: Sequence[str], columns: Mapping[str, Sequence[NDArray[np.uint8]]]) -> Figure:
    """Draw a grid of pictures with a row for each prompt and a column for each policy.

    Args:
        prompts: the prompts, one for each row.
        columns: the pictures of each policy in the order of the prompts, by the policy's label; each is uint8 of shape (height, width, 3).
    """
    left, right = 1.6, 0.5
    size = min(1.2, (WIDTH - left - right) / len(columns))
    slanted = {"rotation": 35, "ha": "left"} if size < 1 else {}
    top = max(0.7, 0.25 + 0.035 * max(map(len, columns))) if slanted else 0.7  # a slanted letter rises by 0.035 inch
    width, height = left + size * len(columns) + right, top + size * len(prompts) + 0.1
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(left / width, 0.1 / height, 1 - right / width, 1 - top / height, wspace=0.06, hspace=0.06)
    panels = figure.subplots(len(prompts), len(columns), squeeze=False)
    for place, (label, pictures) in enumerate(columns.items()):
        panels[0, place].set_title(label, fontsize=7.5, color=INK, **slanted)
        for axes, picture in zip(panels[:, place], pictures, strict=True):
            axes.imshow(picture, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    for axes, prompt in zip(panels[:, 0], prompts, strict=True):
        axes.set_ylabel(textwrap.fill(prompt, 22), fontsize=7.5, color=INK, rotation=0, ha="right", va="center")
    return figure


def _draw(axes: Axes, curves: Mapping[str, Curve], baseline: str, *, band: bool) -> None:
    others = [label for label in curves if label != baseline]
    for label, drawn in curves.items():
        place = -1 if label == baseline else others.index(label)
        colour = INK if place < 0 else SHADES[place % len(SHADES)]
        mark = MARKS[(place + 1) % len(MARKS)]
        if band and len(curves) <= BANDS:
            axes.fill_between(drawn.x, drawn.low, drawn.high, color=colour, alpha=0.12, lw=0)
        elif band:
            axes.vlines(drawn.x[-1], drawn.low[-1], drawn.high[-1], color=colour, lw=1)
        axes.plot(drawn.x, drawn.y, f"{mark}-", color=colour, label=label, lw=2.0 if place < 0 else 1.3, ms=4)


def _legend(figure: Figure, axes: Axes, rows: Mapping[str, Sequence[Row]]) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=min(5, len(rows)), frameon=False, fontsize=8)


def _legend_height(rows: Mapping[str, Sequence[Row]]) -> float:
    return 0.2 * math.ceil(len(rows) / 5)
