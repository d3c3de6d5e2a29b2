"""The commands: each opens a run folder and does one phase of it."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from d3po.cli.arguments import RunArgument
from d3po.cli.comparing import compare
from d3po.cli.generate import register as register_pictures
from d3po.cli.rating import invite, rate
from d3po.cli.votes import votes
from d3po.version import __version__

if TYPE_CHECKING:
    from d3po.library import Run
    from d3po.run.session import Session

app = typer.Typer(
    name="d3po",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune a diffusion model from comparisons, with no reward model. A run is a folder; **to resume a run, run the same command again.** "
    "With `--debug`, any command shows the traceback of an error.",
)

app.add_typer(votes, name="votes")

SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as training.epochs=2. Repeatable.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan (pairs, forward passes, disk, memory, time) and do nothing else.")]


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False) -> None:
    """Options of d3po itself."""
    if version:
        typer.echo(f"d3po {__version__}")
        raise typer.Exit


@app.command(
    epilog="Example: `d3po init runs/vivid --set feedback.reward=colourfulness` · for people: `d3po init runs/mine --feedback human --clicks 100`"
)
def init(
    run: RunArgument,
    recipe: Annotated[str, typer.Option(help="The recipe to start from; `d3po recipes` lists them.")] = "default",
    objective: Annotated[
        str | None, typer.Option(help="The objective, with its default settings in place of the recipe's; `d3po objectives` lists them.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="emoji (embedded), a folder in diffusers' layout, a .safetensors file, a hub id, or custom:module:function."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="A file of prompts to train on, one a line. Default: the recipe's, or the embedded model's.")
    ] = None,
    held_out: Annotated[Path | None, typer.Option(help="A file of prompts for evaluation only. Default: every fifth of --prompts.")] = None,
    feedback: Annotated[
        str | None,
        typer.Option(
            help="Who compares: reward (a measured score), human (people choose the best and the worst of four), "
            "model (a vision-language model), or imported (votes you import)."
        ),
    ] = None,
    clicks: Annotated[
        int | None,
        typer.Option(
            help="How many clicks people will spend, which decides the rounds and the prompts per round. Default with human: 100."
        ),
    ] = None,
    set_: SetOption = None,
    skip_empty: Annotated[bool, typer.Option("--skip-empty", help="Skip empty lines in prompt files.")] = False,
) -> None:
    """Make a run folder: run.toml with every setting, and the prompts."""
    from d3po.recipes import load_recipe
    from d3po.run.cost.clicks import what_to_expect, with_clicks
    from d3po.run.folder import create_run
    from d3po.run.starting import prompts_for, settings_for, start

    said = dict(_assignment(text) for text in set_ or [])
    assignments = settings_for(objective or "", feedback or "", said)
    if model is not None:
        assignments["model"] = model
    begun = start(load_recipe(recipe), assignments)
    trained, kept = prompts_for(begun, prompts, held_out, skip_empty=skip_empty, say=typer.echo)
    config = with_clicks(begun.config, clicks, feedback=feedback or "", prompts=len(trained), said=said)
    typer.echo(begun.words())
    create_run(run, config, prompts=trained, held_out=kept)
    if config.feedback.source == "human":
        for line in what_to_expect(config):
            typer.echo(line)
        typer.echo(f"between them the model samples and trains; an estimate of the time: d3po run {run} --dry-run")
    serve = " --serve" if config.feedback.source == "human" else ""
    typer.echo(f"{run} is ready: settings in {run / 'run.toml'}, {len(trained)} prompts, {len(kept)} held out. Next: d3po run {run}{serve}")


@app.command(epilog="Example: `d3po run runs/demo` · with people: `d3po run runs/demo --feedback human --more 1 --serve`")
def run(
    run: RunArgument,
    feedback: Annotated[
        str | None,
        typer.Option(
            help="Who compares from now on: reward (a measured score), human, model (a vision-language model), or imported (votes you import)."
        ),
    ] = None,
    more: Annotated[
        int, typer.Option(min=0, help="Train this many more rounds than are trained already; 0 keeps `rounds` of run.toml.")
    ] = 0,
    minutes: Annotated[
        float,
        typer.Option(min=0, help="End after the round in which sampling, comparing and training have taken this long; 0 goes by `rounds`."),
    ] = 0.0,
    set_: SetOption = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Also serve the rating page, as `d3po rate` does, and open it in a browser.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the rating page of --serve; 0 takes any free port.")] = 8000,
    num_processes: Annotated[
        int, typer.Option(min=1, help="Number of processes on this machine that sample and train together, such as one for each GPU.")
    ] = 1,
    dry_run: DryRun = False,
) -> None:
    """Sample, compare, train and evaluate, round after round, then write the report."""
    if num_processes > 1 and not dry_run:
        return _launched(num_processes)
    if dry_run and not _alone():
        return None
    changes = dict(_assignment(text) for text in set_ or [])
    if feedback is not None:
        changes["feedback.source"] = feedback
    with _opened(run, changes, more=more, together=True) as session:
        if dry_run:
            from d3po.run.loop import plan_lines

            for line in plan_lines(session):
                typer.echo(line)
            return None
        from d3po.run.feedback.page import rating_page
        from d3po.run.loop import run_rounds

        with rating_page(run, port, session.run.narrator.say) if serve and session.run.distributed.leads else nullcontext():
            run_rounds(session, minutes=minutes)


@app.command(epilog="Example: `d3po sample runs/demo`")
def sample(
    run: RunArgument,
    repair: Annotated[bool, typer.Option("--repair", help="Also check the round's files and make damaged ones again.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Sample the pictures of the next round."""
    with _run(run) as opened:
        if dry_run:
            return _print_plan(opened)
        round = _next_round(opened)
        pictures = opened.sample(repair=repair)
        typer.echo(f"round {round}: {len(pictures)} pictures in {pictures[0].path.parent}")


@app.command(epilog="Example: `d3po train runs/demo`")
def train(run: RunArgument, dry_run: DryRun = False) -> None:
    """Train the next round. If its pictures are not compared yet, they are compared first, or people are waited for."""
    with _run(run) as opened:
        if dry_run:
            return _print_plan(opened)
        round = _next_round(opened)
        opened.train()
        typer.echo(f"round {round}: trained, {len(opened.votes)} answers so far")


@app.command("eval", epilog="Example: `d3po eval runs/demo` · a test by people: `d3po eval runs/demo --blind`, then `d3po rate runs/demo`")
def evaluate_(
    run: RunArgument,
    blind: Annotated[
        bool,
        typer.Option(
            "--blind",
            help="Also ask people, on the page of `d3po rate`, to compare base and tuned pictures without knowing which is which.",
        ),
    ] = False,
) -> None:
    """Measure the newest policy against the base model on held-out prompts."""
    with _run(run) as opened:
        opened.evaluate()
        if blind:
            questions = opened.ask_blind()
            typer.echo(f"{questions} blind comparisons wait at `d3po rate {run}`; the votes appear in `d3po report {run}`")


@app.command(epilog="Example: `d3po report runs/demo`")
def report(run: RunArgument) -> None:
    """Write report.html from the evaluations so far."""
    with _run(run) as opened:
        typer.echo(f"report: {opened.report()}")


@app.command(epilog="Example: `d3po export runs/demo --to my-style`")
def export(
    run: RunArgument,
    to: Annotated[Path | None, typer.Option(help="The folder to write. Default: `export` in the run folder.")] = None,
    push_to: Annotated[
        str | None, typer.Option(metavar="USER/NAME", help="Also upload it to this repository on the Hugging Face Hub.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make that repository private, if it is new.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write the export, print what would be uploaded, and upload nothing.")] = False,
) -> None:
    """Write the result as a LoRA for plain diffusers pipelines, and as a merged model."""
    from d3po.run.export.hub import check_repository, plan_upload, push

    repository = check_repository(push_to) if push_to is not None else None
    with _run(run) as opened:
        directory = to or run / "export"
        written = opened.export(directory)
        for path in written:
            typer.echo(str(path))
        if repository is not None:
            upload = plan_upload(written, directory, repository)
            typer.echo("\n".join(upload.lines()))
            typer.echo("nothing was uploaded (--dry-run)" if dry_run else push(upload, private=private))


app.command(epilog="Example: `d3po compare examples/comparisons/objectives.toml runs/objectives --jobs 2`")(compare)
app.command(epilog="Example: `d3po rate runs/demo`")(rate)
app.command(epilog="Example: `d3po invite runs/demo ada --host 192.168.1.20`")(invite)


@app.command(epilog="Example: `d3po families`")
def families() -> None:
    """Print the model families: how each one is sampled, trained and exported, and how that was tested."""
    from d3po.models.families import FAMILIES

    for family in FAMILIES:
        for line in family.lines():
            typer.echo(line)


@app.command(epilog="Example: `d3po recipes`")
def recipes() -> None:
    """Print the recipes: what each one is for, published numbers, hardware and time, and how it was tested."""
    from d3po.recipes import about_recipe, recipe_names

    for name in recipe_names():
        for line in about_recipe(name).lines(name):
            typer.echo(line)


@app.command(epilog="Example: `d3po scorers`")
def scorers() -> None:
    """Print the scorers: what each one measures, needs and downloads, its licence, and how it was tested."""
    from d3po.scorers.catalogue import ENTRIES

    for entry in ENTRIES:
        for line in entry.lines():
            typer.echo(line)
    typer.echo(
        "several at once: feedback.reward = weighted:0.7*A+3*B (a weighted sum) or pareto:A+B (better by at least one and worse by none)"
    )
    typer.echo("a vision-language model: feedback.source = \"model\" and the settings in [vlm_judge] (pip install 'd3po[vision]')")


@app.command(epilog="Example: `d3po objectives` · start a run with one: `d3po init runs/kto --objective kto`")
def objectives() -> None:
    """Print the objectives: what each one learns from, what it needs, and its settings."""
    from d3po.objectives.registry import OBJECTIVES

    for name, entry in OBJECTIVES.items():
        for line in entry.lines(name):
            typer.echo(line)


@app.command(epilog="Example: `d3po doctor`")
def doctor() -> None:
    """Print versions, the device, what is missing, and how to install it."""
    from d3po.cli.doctor import findings

    for line in findings():
        typer.echo(line)


def _run(path: Path) -> "Run":
    """Open a run folder with the library, which works in one process only."""
    from d3po.errors import ConfigError

    if (processes := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise ConfigError(f"WORLD_SIZE is {processes}, but only `d3po run` takes several processes; start this command without a launcher")
    from d3po.library import Run

    return Run.open(path)


@contextmanager
def _opened(
    path: Path, changes: dict[str, str] | None = None, *, more: int = 0, together: bool = False
) -> "Generator[Session, None, None]":
    """Open a run folder within the block, with changed settings. With `together`, every process of a launcher opens it, and the first one holds the lock."""
    from d3po.errors import ConfigError
    from d3po.run.folder import RunFolder

    processes, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if processes > 1 and not together:
        raise ConfigError(f"WORLD_SIZE is {processes}, but only `d3po run` takes several processes; start this command without a launcher")
    folder = RunFolder(path=path)
    config = folder.config()
    with folder.locked() if rank == 0 else nullcontext():
        from rich.console import Console

        from d3po.config import override
        from d3po.progress import Narrator
        from d3po.run.opened import final_checkpoints, open_run
        from d3po.run.session import Session

        if more:
            changes = {"rounds": str(len(final_checkpoints(folder)) + more)} | (changes or {})
        if changes:
            config = folder.change(changes) if rank == 0 else override(config, changes, where="--set")
        session = Session(open_run(folder, Narrator(Console(quiet=rank > 0)), config=config))
        try:
            yield session
        finally:
            session.close()


def _launched(processes: int) -> None:
    """Run this command line in several processes, without the option `--num-processes`."""
    from d3po.cli.launching import launch
    from d3po.errors import ConfigError

    if "WORLD_SIZE" in os.environ:
        raise ConfigError("--num-processes starts several processes, but a launcher has started this one already; use one of the two")
    words = iter(sys.argv[1:])
    kept: list[str] = []
    for word in words:
        if word == "--num-processes":
            next(words, None)
        elif not word.startswith("--num-processes="):
            kept.append(word)
    launch(kept, processes)


def _alone() -> bool:
    """Leave the group of processes that a launcher started, because all of them would plan the same. Return whether this is the first process."""
    first = os.environ.get("RANK", "0") == "0"
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        os.environ.pop(name, None)
    return first


def _next_round(opened: "Run") -> int:
    from d3po.errors import RunFolderError

    if opened.round >= opened.config.rounds:
        raise RunFolderError(f"all {opened.config.rounds} rounds are trained; raise `rounds` in {opened.path / 'run.toml'} to continue")
    return opened.round


def _print_plan(opened: "Run") -> None:
    for line in opened.plan():
        typer.echo(line)


def _assignment(text: str) -> tuple[str, str]:
    from d3po.errors import ConfigError

    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text} has no value; write it as key=value")
    return key.strip(), value.strip()


register_pictures(app, _opened)
