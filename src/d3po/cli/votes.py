"""The commands for a run's votes: import, export, statistics, merging another run's votes, and gold questions."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from d3po.cli.arguments import RunArgument

if TYPE_CHECKING:
    from d3po.annotation.agreement import Proportion
    from d3po.exchange.importing import Imported
    from d3po.run.feedback.exchange import VoteStatistics
    from d3po.run.folder import RunFolder
    from d3po.store import Store

votes = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Import, export, summarise and merge votes. The formats are in docs/formats.md.",
)

FormatOption = Annotated[
    str,
    typer.Option("--format", help="jsonl (d3po's format), pickapic, jsonl_pairs, folders, likes_csv, d3po_json, label_studio or argilla."),
]
KINDS = ("human", "model", "rule")
PURPOSES = ("train", "gold", "blind", "repeat", "all")


@votes.command("import", epilog="Example: `d3po votes import runs/mine pairs.jsonl --format jsonl_pairs`")
def import_(
    run: RunArgument,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The file, or the folder, to read.", show_default=False)],
    format: FormatOption = "jsonl",
    images: Annotated[
        Path | None, typer.Option(help="The folder that picture paths are relative to. Default: the folder of SOURCE.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="The name of the import, such as ours-2024; its pictures go to import/NAME. Default: the name of SOURCE."),
    ] = None,
    annotator: Annotated[
        str | None,
        typer.Option(help="Handle for votes without an annotator; a second vote on the same pair gets HANDLE#2. Default: import:NAME."),
    ] = None,
    kind: Annotated[str, typer.Option(help="The kind of annotators if the file does not say: human, model or rule.")] = "human",
    question: Annotated[
        str | None,
        typer.Option(help="argilla: the question whose responses are read. Default: preference and ranking.", show_default=False),
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Skip records that cannot be read, and print which. Default: stop before anything is written."),
    ] = False,
) -> None:
    """Import pictures and votes. Pictures that the run already has, with the same bytes and prompt, are recognised. Importing again adds nothing."""
    from d3po.errors import ConfigError
    from d3po.progress import Narrator
    from d3po.run.feedback.exchange import Source, import_votes

    if kind not in KINDS:
        raise ConfigError(f"--kind {kind}: it must be one of {', '.join(KINDS)}")
    source_file = Source(format=format, path=source, images=images, name=name, annotator=annotator, kind=kind, question=question)
    with _opened(run) as (folder, store):
        _say_imported(import_votes(folder, store, source_file, Narrator(), skip_bad=skip_bad))


@votes.command("export", epilog="Example: `d3po votes export runs/mine --to votes.jsonl`")
def export(
    run: RunArgument,
    to: Annotated[Path, typer.Option(help="The file to write; for the formats folders and d3po_json, the folder.", show_default=False)],
    format: FormatOption = "jsonl",
    round: Annotated[int | None, typer.Option(min=0, help="Only votes of this round. Default: all rounds.")] = None,
    purpose: Annotated[
        str | None,
        typer.Option(help="Only votes for this purpose: train, gold, blind, repeat or all. Default: all for jsonl, train for others."),
    ] = None,
    pictures: Annotated[
        bool,
        typer.Option("--pictures/--no-pictures", help="Copy the pictures too; without them, jsonl and label_studio name them by hash."),
    ] = True,
) -> None:
    """Write the run's votes to a file, and print how much the format could not hold."""
    from d3po.errors import ConfigError
    from d3po.exchange.formats.base import say_left_out
    from d3po.progress import Narrator
    from d3po.run.feedback.exchange import FULL_FORMAT, export_votes

    wanted = purpose or ("all" if format == FULL_FORMAT else "train")
    if wanted not in PURPOSES:
        raise ConfigError(f"--purpose {wanted}: it must be one of {', '.join(PURPOSES)}")
    with _opened(run) as (folder, store):
        written = export_votes(
            folder,
            store,
            format=format,
            target=to,
            round=round,
            purpose=None if wanted == "all" else wanted,
            pictures=pictures,
            narrator=Narrator(),
        )
    typer.echo(f"{to}: {written.judgements} judgements of {written.pictures} pictures")
    if written.left_out:
        typer.echo(f"{format} cannot hold {say_left_out(written.left_out)}; jsonl holds everything")


@votes.command("stats", epilog="Example: `d3po votes stats runs/mine`")
def stats(run: RunArgument) -> None:
    """Count the current votes, and print how well people agree, whether one side is favoured, and which annotators to check."""
    from d3po.run.feedback.exchange import vote_statistics

    with _opened(run) as (_, store):
        _say_statistics(vote_statistics(store))


@votes.command("merge", epilog="Example: `d3po votes merge runs/mine runs/copy-on-the-laptop`")
def merge(
    run: RunArgument,
    other: Annotated[
        str, typer.Argument(metavar="OTHER", help="The other run's folder, or its database, such as postgresql://...", show_default=False)
    ],
) -> None:
    """Copy another run's votes on pictures that both runs have. Merging again adds nothing."""
    from d3po.progress import Narrator
    from d3po.run.feedback.exchange import merge_votes

    with _opened(run) as (folder, store):
        _say_imported(merge_votes(folder, store, other, Narrator()))


@votes.command("gold", epilog="Example: `d3po votes gold runs/mine --by owner --count 12`")
def gold(
    run: RunArgument,
    by: Annotated[str, typer.Option(help="The annotator whose answers are taken to be right.")] = "owner",
    count: Annotated[int, typer.Option(min=1, help="How many of this annotator's newest answers are used.")] = 12,
) -> None:
    """Turn answers of one annotator into gold questions. All annotators are asked them now and then, and how often they are right is shown."""
    from d3po.run.feedback.exchange import make_gold

    with _opened(run) as (_, store):
        typer.echo(f"{make_gold(store, by, count)} gold questions from the answers of {by}")


@contextmanager
def _opened(run: Path) -> "Generator[tuple[RunFolder, Store], None, None]":
    """Open the run and its store within the block. The folder is not locked: votes may be imported and exported while the run works."""
    from d3po.run.folder import RunFolder

    folder = RunFolder(path=run)
    store = folder.store(folder.config().database)
    try:
        yield folder, store
    finally:
        store.close()


def _say_imported(done: "Imported") -> None:
    from d3po.escaping import terminal_line

    typer.echo(f"{done.new_votes} new votes, {done.known_votes} already known")
    typer.echo(f"{done.new_pictures} new pictures, {done.known_pictures} already known")
    for line in done.left_out.lines():
        typer.echo(terminal_line(line))
    if done.bad:
        typer.echo(
            f"{done.bad} bad records skipped" + (f", the first {len(done.first_bad)} of them:" if done.bad > len(done.first_bad) else ":")
        )
    for message in done.first_bad:
        typer.echo(f"  {terminal_line(message)}")
    for what, count in sorted(done.passed_over.items()):
        typer.echo(terminal_line(f"{count} {what}"))


def _say_statistics(found: "VoteStatistics") -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Column, Table

    console = Console()
    if not console.is_terminal:
        console.width = 160
    typer.echo(f"{sum(found.outcomes.values())} votes: {_counts(found.outcomes) or 'none'}")
    for who, measured in found.agreement.items():
        typer.echo(f"agreement of {who}, Krippendorff's alpha: {measured}")
    typer.echo(f"left picture chosen by people: {found.left}")
    heads = ("kind", "votes", "weight", "gold", "again", "with others", "left", "median ms", "< 300 ms", "circles")
    table = Table(Column("annotator", no_wrap=True), *heads, box=SIMPLE, padding=(0, 1))
    for annotator, report, trust in found.reports:
        time = "-" if report.median_rt_ms is None else f"{report.median_rt_ms:.0f}"
        shares = [_short(each) for each in (report.gold, report.consistent, report.others, report.left, report.fast, report.cycles)]
        table.add_row(annotator.handle, annotator.kind, str(report.votes), f"{trust.weight:.2f}", *shares[:4], time, *shares[4:])
    if found.reports:
        console.print(table)
    for annotator, report, _ in found.reports:
        for suspicion in report.suspicions:
            typer.echo(f"check {annotator.handle}: {suspicion}")


def _short(part: "Proportion") -> str:
    return f"{part.share:.2f} of {part.total}" if part.total else "-"


def _counts(outcomes: Counter[tuple[str, str, str]]) -> str:
    return ", ".join(f"{count} {purpose}/{kind}/{outcome}" for (purpose, kind, outcome), count in sorted(outcomes.items()))
