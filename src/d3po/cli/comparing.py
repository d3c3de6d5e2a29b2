"""The command that compares objectives."""

from pathlib import Path
from typing import Annotated

import typer


def compare(
    spec: Annotated[
        Path,
        typer.Argument(metavar="SPEC", help="A TOML file: objectives, rewards, seeds, budget; see docs/comparing.md.", show_default=False),
    ],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where runs and results are written.", show_default=False)],
    jobs: Annotated[int, typer.Option(min=1, help="Runs at once, each with one thread.")] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the grid with rounds, labels, network rows and time, and do nothing.")
    ] = False,
) -> None:
    """Run a grid of objectives, rewards and seeds under equal budgets, and write tables, figures and a page of what came of it."""
    from d3po.run.comparison.grid import compare as run_comparison
    from d3po.run.comparison.grid import plan_lines
    from d3po.run.comparison.spec import load_spec
    from d3po.run.progress import Narrator

    wanted, narrator = load_spec(spec), Narrator()
    if dry_run:
        for line in plan_lines(wanted, narrator):
            typer.echo(line)
        return
    failed = run_comparison(wanted, folder, narrator, at_once=jobs)
    typer.echo(f"results: {folder / 'comparison.md'}, {folder / 'comparison.csv'}")
    if failed:
        typer.echo(f"error: {len(failed)} cells failed, the first ({next(iter(failed))}): {next(iter(failed.values()))}", err=True)
        raise typer.Exit(1)
