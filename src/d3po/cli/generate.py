"""The commands that generate pictures with a trained run."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from d3po.cli.arguments import RunArgument

if TYPE_CHECKING:
    from d3po.run.opened import OpenRun
    from d3po.run.session import Session

PromptOption = Annotated[
    list[str] | None, typer.Option("--prompt", metavar="TEXT", help="A prompt. Repeatable. Default: held-out prompts.")
]
PromptsOption = Annotated[Path | None, typer.Option("--prompts", help="A file of prompts, one a line.")]
CountOption = Annotated[int, typer.Option("--count", min=1, help="Number of pictures of each prompt.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of the noise; with the same seed, base and tuned pictures can be compared.")]
Opener = Callable[[Path], "AbstractContextManager[Session]"]
SHOWN = 8
"""How many held-out prompts are used if no prompt is given."""


def register(app: typer.Typer, opened: Opener) -> None:
    """Add the commands to `app`; `opened` opens a run folder."""

    @app.command("generate", epilog='Example: `d3po generate runs/demo --prompt "a panda" --to pictures`')
    def _generate(
        run: RunArgument,
        prompt: PromptOption = None,
        prompts: PromptsOption = None,
        to: Annotated[Path | None, typer.Option(help="The folder to write. Default: `generated` in the run folder.")] = None,
        count: CountOption = 1,
        seed: SeedOption = 0,
        base: Annotated[bool, typer.Option("--base", help="Use the base model instead of the result.")] = False,
    ) -> None:
        """Generate pictures with the run's result."""
        with opened(run) as session:
            from d3po.run.export.generating import generate

            for path in generate(
                session, _wanted(session.run, prompt, prompts), to or run / "generated", count=count, seed=seed, base=base
            ):
                typer.echo(str(path))

    @app.command("compare-images", epilog="Example: `d3po compare-images runs/demo --to before-after.png`")
    def _compare_images(
        run: RunArgument,
        prompt: PromptOption = None,
        prompts: PromptsOption = None,
        to: Annotated[Path | None, typer.Option(help="The PNG to write. Default: `compared.png` in the run folder.")] = None,
        count: CountOption = 2,
        seed: SeedOption = 0,
    ) -> None:
        """Generate a grid with the base model's pictures beside the result's, from the same noise."""
        with opened(run) as session:
            from d3po.run.export.generating import compare_images

            typer.echo(
                str(compare_images(session, _wanted(session.run, prompt, prompts), to or run / "compared.png", count=count, seed=seed))
            )


def _wanted(run: "OpenRun", prompt: list[str] | None, prompts: Path | None) -> list[str]:
    from d3po.errors import PromptError
    from d3po.run.prompts import read_prompts
    from d3po.text import prompt_of

    given = [*(prompt_of(each, "--prompt", PromptError) for each in prompt or []), *(read_prompts(prompts) if prompts else [])]
    return given or run.folder.held_out()[:SHOWN]
