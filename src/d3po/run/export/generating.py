"""Pictures for people who just want pictures: of the result, or of the base model beside it."""

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
"""Pixels between pictures of a grid, and of a line of text."""


def generate(session: Session, prompts: Sequence[str], directory: Path, *, count: int, seed: int, base: bool = False) -> list[Path]:
    """Write `count` pictures of each prompt as PNGs; the same seed gives the same noise, whatever the policy.

    Raises:
        RunFolderError: nothing has been trained yet and the base model was not asked for.
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
    """Write one PNG: a row a prompt and image, the base model's picture beside the result's from the same noise.

    Raises:
        RunFolderError: nothing has been trained yet.
        PromptError: no prompt was given.
    """
    rounds = _trained(session.run)
    before, after = (_pictures(session, prompts, r, count=count, seed=seed) for r in (0, rounds))
    write_atomically(path, _grid(prompts, before, after))
    return path


def _pictures(session: Session, prompts: Sequence[str], rounds: int, *, count: int, seed: int) -> NDArray[np.uint8]:
    if not prompts:
        raise PromptError("there is no prompt to make pictures of; give --prompt 'a cat', more than once for more, or --prompts FILE")
    session.load_round_weights(rounds)
    with averaged(session, rounds):
        return sample_pictures(session, prompts, count, stream=f"generate/{seed}", title="base" if rounds == 0 else "tuned")


def _trained(run: OpenRun) -> int:
    rounds = result_rounds(run)
    if rounds == 0:
        raise RunFolderError(f"{run.folder.path} has no trained round yet; train one with `d3po run {run.folder.path}`")
    return rounds


def _grid(prompts: Sequence[str], before: NDArray[np.uint8], after: NDArray[np.uint8]) -> bytes:
    """(P, n, height, width, 3) twice, as a PNG: columns base and tuned, n times; the prompt above each row."""
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
