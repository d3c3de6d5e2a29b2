"""Find a reward by the name that run.toml gives it."""

import difflib
import importlib
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from PIL import Image

from d3po.errors import CorruptFileError, RewardError
from d3po.feedback.rewards import measured

Reward = Callable[[Image.Image, str], float]

REWARDS: dict[str, Reward] = {
    "jpeg_compressibility": measured.jpeg_compressibility,
    "jpeg_incompressibility": measured.jpeg_incompressibility,
    "brightness": measured.brightness,
    "colourfulness": measured.colourfulness,
    "warmth": measured.warmth,
}


def load_reward(name: str) -> Reward:
    """The reward of that name: a built-in, `closeness:#rrggbb`, or a user's `module:function`.

    Raises:
        RewardError: there is none; the message suggests the nearest.
    """
    if name in REWARDS:
        return _checked(name, REWARDS[name])
    head, colon, tail = name.partition(":")
    if head == "closeness":
        measured.closeness(Image.new("RGB", (1, 1)), "", tail)
        return _checked(name, partial(measured.closeness, colour=tail))
    if colon:
        return _checked(name, _imported(head, tail))
    near = difflib.get_close_matches(name, REWARDS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise RewardError(
        f"there is no reward {name!r}; {hint}built in are {', '.join(REWARDS)}, closeness:#rrggbb, or your own module:function"
    )


def score_file(reward: Reward, path: Path, prompt: str) -> float:
    """The reward of a picture on disk.

    Raises:
        CorruptFileError: the file is gone or no picture.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return reward(image, prompt)
    except OSError as error:
        raise CorruptFileError(f"picture {path} cannot be read ({error}); make it again with `d3po sample RUN --repair`") from error


def _imported(module: str, function: str) -> Reward:
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module(module), function)
    except Exception as error:  # a user's module may raise anything
        raise RewardError(f"reward {module}:{function} cannot be imported: {error}; run from the folder that holds {module}.py") from error


def _checked(name: str, reward: Reward) -> Reward:
    def checked(image: Image.Image, prompt: str) -> float:
        try:
            value = float(reward(image, prompt))
        except Exception as error:
            raise RewardError(f"reward {name} failed on an image of {prompt!r}: {type(error).__name__}: {error}") from error
        if not math.isfinite(value):
            raise RewardError(f"reward {name} gave {value} for an image of {prompt!r}; it must be a finite number")
        return value

    return checked
