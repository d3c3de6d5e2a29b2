"""Writes what a comparison has shown: the CSV, the tables and the page with its figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from d3po.evaluation.comparison import Row, summaries, to_csv
from d3po.evaluation.comparison_tables import Table, cost_table, difference_table, result_table
from d3po.run.comparison.cells import Cell
from d3po.run.comparison.spec import Spec
from d3po.run.folder import RunFolder
from d3po.storage.files import write_atomically


@dataclass(frozen=True, kw_only=True)
class Done:
    """A cell that was brought to its end."""

    cell: Cell
    folder: RunFolder
    rows: Sequence[Row]


def write_tables(spec: Spec, path: Path, done: Sequence[Done], failed: Mapping[str, str]) -> None:
    """Write comparison.csv and comparison.md from the cells that are done."""
    rows = [row for each in done for row in each.rows]
    write_atomically(path / "comparison.csv", to_csv(rows))
    write_atomically(path / "comparison.md", _markdown(spec, rows, failed))


def tables_of(spec: Spec, rows: Sequence[Row], reward: str) -> list[Table]:
    """The tables of a reward; none where no cell of it is done."""
    labels = [entry.label for entry in spec.objectives]
    found = summaries(rows, reward, labels=labels, baseline=spec.baseline)
    if not found:
        return []
    return [result_table(found), *([difference_table(found, spec.baseline)] if len(found) > 1 else []), cost_table(found)]


def heading(spec: Spec) -> str:
    """What was compared, in one sentence."""
    unit = spec.budget.unit.replace("_", " ")
    return (
        f"{len(spec.objectives)} objectives on the model {spec.model}, recipe {spec.recipe}, each with {spec.budget.amount:,} {unit}; "
        f"{len(spec.seeds)} seeds; baseline {spec.baseline}."
    )


def _markdown(spec: Spec, rows: Sequence[Row], failed: Mapping[str, str]) -> str:
    parts = ["# Comparison\n", heading(spec) + "\n"]
    for reward in spec.rewards:
        tables = tables_of(spec, rows, reward)
        parts += [f"## Trained for {reward}\n", *(table.markdown() for table in tables)]
        parts += [] if tables else ["No cell is done yet.\n"]
    if failed:
        parts += ["## Cells that failed\n", "".join(f"* {name}: {words}\n" for name, words in failed.items())]
    return "\n".join(parts)
