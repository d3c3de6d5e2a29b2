"""Generates pictures with the result of a run, or with the base model, for prompts of the user's choice."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from d3po.artifacts.files import write_atomically
from d3po.errors import PromptError, RunFolderError
from d3po.pictures import encode
from d3po.run.evaluate.phase import averaged
from d3po.run.loop import result_rounds
from d3po.run.opened import OpenRun
from d3po.run.sample.phase import sample_pictures
from d3po.run.session import Session

GAP, CAPTION = 4, 14
"""Pixels: the gap between the pictures of a grid, and the height of a line of text."""


def generate(session: Session, prompts: Sequence[str], directory: Path, *, count: int, seed: int, base: bool = False) -> list[Path]:
    """Write `count` pictures of each prompt as PNGs, and return their paths. The same seed gives every policy the same noise.

    Raises:
        RunFolderError: nothing is trained yet, and `base` is false.
        PromptError: no prompt was given.
    """
    rounds = 0 if base else _trained(session.run)
    pictures = _pictures(session, prompts, rounds, count=count, seed=seed)
    written: list[Path] = []
    for p, row in enumerate(pictures):
        for i, pixels in enumerate(row):
            written.append(directory / f"{p:03}-{i}.png")
            write_atomically(written[-1], encode(Image.fromarray(pixels)))
    return written


def compare_images(session: Session, prompts: Sequence[str], path: Path, *, count: int, seed: int) -> Path:
    """Write a grid as one PNG, with one row a prompt: `count` times the base model's picture beside the result's, from the same noise.

    Raises:
        RunFolderError: nothing is trained yet.
        PromptError: no prompt was given.
    """
    rounds = _trained(session.run)
    before, after = (_pictures(session, prompts, r, count=count, seed=seed) for r in (0, rounds))
    write_atomically(path, _grid(prompts, before, after))
    return path


def _pictures(session: Session, prompts: Sequence[str], rounds: int, *, count: int, seed: int) -> NDArray[np.uint8]:
    if not prompts:
        raise PromptError("there is no prompt to make pictures of; pass --prompt 'a cat' (it can be repeated), or --prompts FILE")
    session.load_round_weights(rounds)
    with averaged(session, rounds):
        return sample_pictures(session, prompts, count, stream=f"generate/{seed}", title="base" if rounds == 0 else "tuned")


def _trained(run: OpenRun) -> int:
    rounds = result_rounds(run)
    if rounds == 0:
        raise RunFolderError(f"{run.folder.path} has no trained round yet; train one with `d3po run {run.folder.path}`")
    return rounds


def _grid(prompts: Sequence[str], before: NDArray[np.uint8], after: NDArray[np.uint8]) -> bytes:
    """Lay out two arrays of pictures, (P, n, height, width, 3) each, as a PNG: n times the columns base and tuned, with the prompt above each row."""
    count, height, width = before.shape[1:4]
    row = CAPTION + height + GAP
    sheet = Image.new("RGB", (2 * count * (width + GAP), CAPTION + len(prompts) * row), "white")
    draw = ImageDraw.Draw(sheet)
    for i in range(2 * count):
        draw.text((i * (width + GAP), 0), "tuned" if i % 2 else "base", fill="black")
    for p, prompt in enumerate(prompts):
        draw.text((0, CAPTION + p * row), prompt, fill="black")
        for i in range(count):
            for side, pictures in enumerate((before, after)):
                sheet.paste(Image.fromarray(pictures[p, i]), ((2 * i + side) * (width + GAP), 2 * CAPTION + p * row))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
