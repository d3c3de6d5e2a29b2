"""Reads prompt files, with one prompt a line. Prompts with the same `d3po.text.fold` count as the same prompt."""

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from d3po.embedded import DEFAULT, EMBEDDED
from d3po.errors import ConfigError, PromptError
from d3po.text import fold, lines, prompt_of, read_text

Say = Callable[[str], None]
"""A function that shows a message to the user."""


def read_prompts(path: Path, *, skip_empty: bool = False) -> list[str]:
    """Read the prompts of a file, in order.

    Raises:
        PromptError: the file cannot be read, is not text, holds no prompt or empty lines (unless skipped), or a prompt holds control characters.
    """
    numbered = [
        (number, prompt_of(line, f"{path}, line {number}", PromptError))
        for number, line in enumerate(lines(read_text(path, PromptError)), 1)
    ]
    empty = [number for number, prompt in numbered if not prompt]
    prompts = [prompt for _, prompt in numbered if prompt]
    if not prompts:
        raise PromptError(f"{path} holds no prompt; write one prompt a line")
    if empty and not skip_empty:
        shown = ", ".join(map(str, empty[:5])) + (", ..." if len(empty) > 5 else "")
        raise PromptError(f"{len(empty)} of {len(numbered)} prompts in {path} are empty (lines {shown}); remove them or pass --skip-empty")
    return prompts


def distinct(prompts: Sequence[str], where: object, say: Say) -> list[str]:
    """Keep the first of all prompts that count as the same, and report through `say` how many were dropped. `where` names their source."""
    kept = dict[str, str]()
    doubled = list[tuple[str, str]]()
    for prompt in prompts:
        if fold(prompt) in kept:
            doubled.append((prompt, kept[fold(prompt)]))
        else:
            kept[fold(prompt)] = prompt
    if doubled:
        prompt, first = doubled[0]
        example = f"{prompt!r}" if prompt == first else f"{prompt!r} beside {first!r}"
        say(f"{len(doubled)} of {len(prompts)} prompts in {where} are duplicates, such as {example}; the first of each is kept")
    return list(kept.values())


def shared_prompts(prompts: Iterable[str], held_out: Iterable[str]) -> list[tuple[str, str]]:
    """The held-out prompts that are training prompts too, each with that training prompt."""
    trained = {fold(prompt): prompt for prompt in prompts}
    return [(prompt, trained[fold(prompt)]) for prompt in held_out if fold(prompt) in trained]


def require_new(prompts: Iterable[str], held_out: Iterable[str]) -> None:
    """Check that no held-out prompt is a training prompt.

    Raises:
        ConfigError: some held-out prompts are training prompts too.
    """
    if shared := shared_prompts(prompts, held_out):
        raise ConfigError(f"{said_shared(shared)}; held-out prompts must be new to the policy: use others")


def said_shared(shared: list[tuple[str, str]]) -> str:
    """Describe how many held-out prompts are training prompts too, with an example."""
    prompt, other = shared[0]
    example = f"{prompt!r}" if prompt == other else f"{prompt!r}, which differs from {other!r} only in case, white space or Unicode form"
    return f"{len(shared)} held-out prompts are training prompts too, such as {example}"


def prompts_of_round(prompts: list[str], count: int, *, seed: int, round: int) -> list[str]:
    """Draw `count` distinct prompts for a round. The draw depends on the seed and the round alone.

    Raises:
        PromptError: there are fewer than `count` prompts.
    """
    if count > len(prompts):
        raise PromptError(f"sampling.prompts_per_round is {count} but there are only {len(prompts)} prompts; add prompts or lower it")
    return random.Random(f"{seed}/prompts/{round}").sample(prompts, count)


def choose_prompts(
    prompts: Path | None, held_out: Path | None, *, embedded: str = DEFAULT, skip_empty: bool, say: Say = lambda _: None
) -> tuple[list[str], list[str]]:
    """Read training prompts and held-out prompts from the given files, or the embedded model's lists if no file is given.

    With a prompt file and no held-out file, every fifth prompt is held out. Duplicates are dropped, which is reported through `say`.

    Raises:
        PromptError: a file cannot be used.
    """

    def chosen(path: Path) -> list[str]:
        return distinct(read_prompts(path, skip_empty=skip_empty), path, say)

    trained = chosen(prompts or EMBEDDED[embedded].prompts)
    if held_out is not None:
        return trained, chosen(held_out)
    if prompts is None:
        return trained, chosen(EMBEDDED[embedded].held_out)
    return every_fifth(trained)


def every_fifth(prompts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split prompts into those to train on and every fifth, which is held out."""
    return [prompt for i, prompt in enumerate(prompts) if i % 5 != 4], list(prompts[4::5])
