"""Writes the results of a comparison: the CSV, the tables, and the page with its figures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console

from d3po.artifacts.files import write_atomically
from d3po.errors import ConfigError
from d3po.evaluation.drawing import png, svg
from d3po.experiments.cells import Cell
from d3po.experiments.figures import learning_figure, picture_figure, trade_figure
from d3po.experiments.findings import Row, summaries, to_csv
from d3po.experiments.page import LEARNING, PICTURES, TRADE, Chapter, Drawn, Page, render
from d3po.experiments.results import first_pictures
from d3po.experiments.spec import Spec, slug, unit_in_words
from d3po.experiments.tables import Table, cost_table, difference_table, result_table
from d3po.progress import Narrator
from d3po.run.evaluate.report import versions
from d3po.run.folder import RunFolder
from d3po.run.opened import open_run
from d3po.text import read_text

KEPT_SPEC = "comparison.toml"
"""The name of the copy of the comparison's file in its folder."""
SHOWN_PROMPTS = 8


@dataclass(frozen=True, kw_only=True)
class Done:
    """A finished cell with its results."""

    cell: Cell
    folder: RunFolder
    rows: Sequence[Row]


def write_tables(spec: Spec, path: Path, done: Sequence[Done], failed: Mapping[str, str]) -> None:
    """Write comparison.csv and comparison.md from the finished cells."""
    rows = [row for each in done for row in each.rows]
    write_atomically(path / "comparison.csv", to_csv(rows))
    write_atomically(path / "comparison.md", _markdown(spec, rows, failed))


def tables_of(spec: Spec, rows: Sequence[Row], reward: str) -> list[Table]:
    """The tables for a reward. Empty if none of its cells is finished."""
    labels = [entry.label for entry in spec.objectives]
    found = summaries(rows, reward, labels=labels, baseline=spec.baseline)
    if not found:
        return []
    return [result_table(found), *([difference_table(found, spec.baseline)] if len(found) > 1 else []), cost_table(found)]


def heading(spec: Spec) -> str:
    """Describe what is compared, in one sentence."""
    unit = unit_in_words(spec.budget.unit)
    return (
        f"{len(spec.objectives)} objectives on the model {spec.model}, recipe {spec.recipe}, each with {spec.budget.amount:,} {unit}; "
        f"{len(spec.seeds)} seeds; baseline {spec.baseline}."
    )


def _markdown(spec: Spec, rows: Sequence[Row], failed: Mapping[str, str]) -> str:
    parts = ["# Comparison\n", heading(spec) + "\n"]
    for reward in spec.rewards:
        tables = tables_of(spec, rows, reward)
        parts += [f"## Trained for {reward}\n", *(table.markdown() for table in tables)]
        parts += [] if tables else ["No cell is finished yet.\n"]
    if failed:
        parts += ["## Cells that failed\n", "".join(f"* {name}: {words}\n" for name, words in failed.items())]
    return "\n".join(parts)


def write_page(spec: Spec, path: Path, done: Sequence[Done], failed: Mapping[str, str]) -> None:
    """Write comparison.html, and its figures in figures/."""
    chapters: list[Chapter] = []
    for reward in spec.rewards:
        mine = [each for each in done if each.cell.reward == reward]
        if mine:
            figures = _figures(spec, mine)
            tables = tables_of(spec, [row for each in mine for row in each.rows], reward)
            chapters.append(Chapter(title=f"Trained for {reward}", tables=tables, figures=list(figures.values())))
            for name, drawn in figures.items():
                suffix = "svg" if isinstance(drawn.content, str) else "png"
                write_atomically(path / "figures" / f"{name}-{slug(reward)}.{suffix}", drawn.content)
    page = Page(
        title=path.name,
        lead=heading(spec),
        chapters=chapters,
        failed=failed,
        spec=read_text(path / KEPT_SPEC, ConfigError),
        versions=versions(),
    )
    write_atomically(path / "comparison.html", render(page))


def _figures(spec: Spec, done: Sequence[Done]) -> dict[str, Drawn]:
    """Draw the figures of one reward. The keys are the beginnings of their file names."""
    rows = {
        entry.label: [row for each in done if each.cell.label == entry.label for row in each.rows]
        for entry in spec.objectives
        if any(each.cell.label == entry.label for each in done)
    }
    return {
        "learning": Drawn(title="Learning", reading=LEARNING, content=svg(learning_figure(rows, spec.baseline))),
        "trade": Drawn(title="Trained reward against held-out rewards", reading=TRADE, content=svg(trade_figure(rows, spec.baseline))),
        "pictures": Drawn(title="Pictures", reading=PICTURES, content=png(_pictures(done))),
    }


def _pictures(done: Sequence[Done]) -> Figure:
    """Draw pictures of the seed for which most labels are finished."""
    seed = Counter(each.cell.seed for each in done).most_common(1)[0][0]
    shown = [each for each in done if each.cell.seed == seed]
    prompts = shown[0].cell.held_out[: shown[0].cell.config.evaluation.prompts][:SHOWN_PROMPTS]
    before = {"base": _first_pictures(shown[0], 0, len(prompts))}
    after = {each.cell.label: _first_pictures(each, each.rows[-1].rounds, len(prompts)) for each in shown}
    return picture_figure(prompts, before | after)


def _first_pictures(done: Done, rounds: int, prompts: int) -> list[NDArray[np.uint8]]:
    with closing(open_run(done.folder, Narrator(Console(quiet=True)))) as run:
        return first_pictures(run, rounds, prompts)
