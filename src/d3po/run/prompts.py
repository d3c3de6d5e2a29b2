"""Prompt files: one prompt a line."""

import random
from importlib.resources import files
from pathlib import Path

from d3po.errors import PromptError


def read_prompts(path: Path, *, skip_empty: bool = False) -> list[str]:
    """The prompts of a file, in order.

    Raises:
        PromptError: unreadable, not UTF-8, no prompts, empty lines (unless skipped) or doubled prompts.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise PromptError(f"prompts {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PromptError(f"prompts {path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1)]
    empty = [number for number, line in numbered if not line]
    prompts = [line for _, line in numbered if line]
    if not prompts:
        raise PromptError(f"prompts {path} holds no prompt; write one a line")
    if empty and not skip_empty:
        shown = ", ".join(map(str, empty[:5])) + (", ..." if len(empty) > 5 else "")
        raise PromptError(f"{len(empty)} of {len(lines)} prompts in {path} are empty (lines {shown}); remove them or pass --skip-empty")
    doubled = sorted({prompt for prompt in prompts if prompts.count(prompt) > 1})
    if doubled:
        raise PromptError(f"{len(doubled)} prompts in {path} stand there twice, such as {doubled[0]!r}; keep one of each")
    return prompts


def prompts_of_round(prompts: list[str], count: int, *, seed: int, round: int) -> list[str]:
    """`count` distinct prompts for a round, a function of the seed and the round alone.

    Raises:
        PromptError: there are fewer prompts than that.
    """
    if count > len(prompts):
        raise PromptError(f"sampling.prompts_per_round is {count} but there are only {len(prompts)} prompts; add prompts or lower it")
    return random.Random(f"{seed}/prompts/{round}").sample(prompts, count)


def choose_prompts(prompts: Path | None, held_out: Path | None, *, skip_empty: bool) -> tuple[list[str], list[str]]:
    """Training prompts and held-out prompts: from the given files, from the embedded model's lists where none is given.

    With a prompt file and no held-out file, every fifth prompt is held out.
    """
    lists = Path(str(files("d3po") / "assets" / "emoji"))
    trained = read_prompts(prompts or lists / "prompts.txt", skip_empty=skip_empty)
    if held_out is not None:
        return trained, read_prompts(held_out, skip_empty=skip_empty)
    if prompts is None:
        return trained, read_prompts(lists / "held_out.txt")
    return [p for i, p in enumerate(trained) if i % 5 != 4], trained[4::5]
