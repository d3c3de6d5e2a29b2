"""Loading the rewards that a run's `feedback.reward` names: one reward, a weighted sum, or several criteria.

* `colourfulness`: a scorer of the catalogue; `closeness:#ff0000`, `pickscore:/models/pick`: with an argument
* `mymodule:myfunction`: a user's own function
* `weighted:0.7*pickscore+3*warmth`: one reward, the weighted sum of others
* `pareto:pickscore+aesthetic`: several criteria; a picture wins if it is better by at least one and worse by none, anything else is a tie
"""

import difflib
import importlib
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from PIL import Image

from d3po.artifacts.run_pictures import SAMPLE_AGAIN, read_picture
from d3po.errors import RewardError
from d3po.scorers.catalogue import SCORERS, Reward

WEIGHTED, PARETO = "weighted:", "pareto:"
NUMBER = r"-?(?:\d+\.?\d*|\.\d+)"
NEXT_TERM = re.compile(rf"\+(?={NUMBER}\*)")
TERM = re.compile(rf"({NUMBER})\*(.+)")


def load_criteria(name: str, say: Callable[[str], None]) -> tuple[Reward, ...]:
    """Load the rewards by which pictures are compared: one, or several for `pareto:`.

    Args:
        name: the value of `feedback.reward`, see the module docstring.
        say: told what will be downloaded, beforehand.

    Raises:
        RewardError: there is no reward of that name, or it cannot be made; the message says what to do.
    """
    if not name.startswith(PARETO):
        return (load_reward(name, say),)
    parts = name.removeprefix(PARETO).split("+")
    if len(parts) < 2:
        raise RewardError(f"{name} has one criterion; name two or more, as in pareto:warmth+brightness")
    return tuple(load_reward(part.strip(), say) for part in parts)


def load_reward(name: str, say: Callable[[str], None]) -> Reward:
    """Load one reward: a scorer of the catalogue, a weighted sum, or a user's `module:function`. Arguments and errors are those of `load_criteria`."""
    if name.startswith(WEIGHTED):
        return _weighted(name, say)
    head, colon, tail = name.partition(":")
    if head in SCORERS:
        return checked_reward(name, SCORERS[head].reward(tail, say))
    if colon and head != PARETO.rstrip(":"):
        return checked_reward(name, _imported(head, tail))
    near = difflib.get_close_matches(name, SCORERS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise RewardError(f"there is no reward {name!r}; {hint}`d3po scorers` lists them, and module:function is one of your own")


def annotator_kind(name: str) -> Literal["rule", "model"]:
    """The kind of annotator that the store records for votes by this reward: `model` if a learned scorer is part of it, else `rule`."""
    named = {part.partition(":")[0] for part in re.split(r"[+*]", name.removeprefix(WEIGHTED).removeprefix(PARETO))}
    return "model" if any(SCORERS[each].kind == "model" for each in named & SCORERS.keys()) else "rule"


def score_file(criteria: tuple[Reward, ...], path: Path, prompt: str, *, checksum: str | None = None) -> tuple[float, ...]:
    """Score a picture on disk by each criterion, and check the file against the SHA-256 `checksum` if one is given.

    Raises:
        CorruptFileError: the file is gone, not what was written, or no picture.
        RewardError: a reward failed, or returned no finite number.
    """
    image = read_picture(path, remedy=SAMPLE_AGAIN, checksum=checksum)
    return tuple(reward(image, prompt) for reward in criteria)


def _weighted(name: str, say: Callable[[str], None]) -> Reward:
    matches = [TERM.fullmatch(term.strip()) for term in NEXT_TERM.split(name.removeprefix(WEIGHTED))]
    terms = [(float(match[1]), load_reward(match[2], say)) for match in matches if match]
    if len(terms) < len(matches):
        raise RewardError(f"{name} is no weighted sum; write it as weighted:0.7*pickscore+3*warmth")
    return lambda image, prompt: sum(weight * reward(image, prompt) for weight, reward in terms)


def _imported(module: str, function: str) -> Reward:
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module(module), function)
    except (Exception, SystemExit) as error:  # a user's module may raise anything, and must not end the run silently
        said = f"{type(error).__name__}: {error}"
        raise RewardError(f"reward {module}:{function} cannot be imported: {said}; run from the folder that holds {module}.py") from error


def checked_reward(name: str, reward: Reward) -> Reward:
    """Wrap a reward so that its errors, and values that are no finite numbers, raise a `RewardError` that names it."""

    def checked(image: Image.Image, prompt: str) -> float:
        try:
            value = float(reward(image, prompt))
        except (Exception, SystemExit) as error:
            raise RewardError(f"reward {name} failed on an image of {prompt!r}: {type(error).__name__}: {error}") from error
        if not math.isfinite(value):
            raise RewardError(f"reward {name} gave {value} for an image of {prompt!r}; it must be a finite number")
        return value

    return checked
