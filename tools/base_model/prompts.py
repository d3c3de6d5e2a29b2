"""The prompts that the package brings for the model: those to train on, and those about other subjects that are held out."""

from itertools import cycle
from pathlib import Path

from tools.base_model import drawings as data

HELD_OUT = (
    "penguin", "koala", "butterfly", "strawberry", "cactus", "hamburger", "car", "heart", "rabbit", "owl", "pear", "umbrella",
)  # fmt: skip
"""Subjects of held-out prompts, which no training prompt names."""
HELD_OUT_STYLES = 2
"""How many prompts with a style are held out of each such subject, beside the one without."""


def write(target: Path) -> None:
    """Write `prompts.txt` and `held_out.txt`, one prompt a line."""
    trained, held_out = prompts()
    for name, lines in (("prompts.txt", trained), ("held_out.txt", held_out)):
        (target / name).write_text("".join(f"{line}\n" for line in lines))


def prompts() -> tuple[list[str], list[str]]:
    """The prompts to train on, each subject without a style and in every style, and the held-out ones, first each subject without a style."""
    kept = [subject for subject, name in enumerate(data.SUBJECTS) if name in HELD_OUT]
    trained = [
        _said(subject, style) for subject in range(len(data.SUBJECTS)) if subject not in kept for style in (None, *range(len(data.STYLES)))
    ]
    styles = cycle(range(len(data.STYLES)))
    held_out = [_said(subject, None) for subject in kept]
    held_out += [_said(subject, next(styles)) for _ in range(HELD_OUT_STYLES) for subject in kept]
    return trained, held_out


def _said(subject: int, style: int | None) -> str:
    return data.caption(subject, 0, style, None, 0, 0, 0)
