"""The command that compares objectives."""

from pathlib import Path
from typing import Annotated

import typer


def compare(
    spec: Annotated[
        Path,
        typer.Argument(metavar="SPEC", help="A TOML file: objectives, rewards, seeds, budget; see docs/comparing.md.", show_default=False),
    ],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder for runs and results.", show_default=False)],
    jobs: Annotated[int, typer.Option(min=1, help="How many runs at a time, each with one thread.")] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the grid with rounds, labels, forward passes and time, and do nothing else.")
    ] = False,
) -> None:
    """Run a grid of objectives, rewards and seeds under equal budgets, and write the results as tables, figures and a page."""
    from d3po.experiments import grid
    from d3po.progress import Narrator

    narrator = Narrator()
    if dry_run:
        for line in grid.plan_lines(spec, narrator):
            typer.echo(line)
        return
    failed = grid.compare(spec, folder, narrator, at_once=jobs)
    typer.echo(f"results: {folder / 'comparison.html'}, {folder / 'comparison.md'}, {folder / 'comparison.csv'}")
    if failed:
        name, line = next(iter(failed.items()))
        typer.echo(f"error: failed cells: {len(failed)}; {name}: {line}; fix the cause and run the same command again", err=True)
        raise typer.Exit(1)
