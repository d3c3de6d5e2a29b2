"""The settings a new run begins with: the recipe's, what its model's family proposes, and what the user says."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from d3po.config import RunConfig, override
from d3po.errors import ConfigError
from d3po.models.families import EMBEDDED, Family, family_of, proposed_for
from d3po.objectives.registry import OBJECTIVES, default_settings
from d3po.recipes import recipe_prompts
from d3po.run.places import whole_paths
from d3po.run.prompts import Say, choose_prompts

STARTS = 64
"""Starting noises of a run without prompts, if its settings ask for no more."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A configuration, and where it came from."""

    config: RunConfig
    family: Family | None
    """None: the recipe's own model, whose settings the recipe holds."""
    proposed: dict[str, str]
    """What the family put in place of the recipe's settings."""

    @property
    def needs_prompts(self) -> bool:
        """Whether the user has to give prompts."""
        return self.config.model != EMBEDDED and self.has_prompts

    @property
    def has_prompts(self) -> bool:
        """Whether the model is told anything by a prompt."""
        return self.family is None or self.family.prompts

    def words(self) -> str:
        """What was recognised, in one line."""
        if self.family is None:
            return f"model: {self.config.model}, with the settings of the recipe {self.config.recipe!r}"
        proposed = ", ".join(f"{key} = {value}" for key, value in self.proposed.items())
        return f"model: {self.family.title}" + (f"; proposed for it: {proposed}" if proposed else "")


def start(recipe: RunConfig, assignments: dict[str, str], *, where: str = "--set") -> Start:
    """The recipe's settings for the model; `default` takes what the model's family proposes, and assignments win over both; messages
    say that they came from `where`.

    Raises:
        ModelError: the model is not found, or is of no family that is known.
    """
    said = override(recipe, assignments, where=where)
    config = whole_paths(said)
    if said.model == recipe.model:
        return Start(config=config, family=None, proposed={})
    family = family_of(config.model)
    proposed = (
        {key: value for key, value in proposed_for(family, config.model).items() if key not in assignments}
        if recipe.recipe == "default"
        else {}
    )
    return Start(config=override(config, proposed, where=family.name), family=family, proposed=proposed)


def settings_for_objective(objective: str) -> dict[str, str]:
    """The settings that make a run train by an objective as it wants to be run.

    Raises:
        ConfigError: there is none of that name; the message suggests the nearest.
    """
    if objective not in OBJECTIVES:
        near = difflib.get_close_matches(objective, OBJECTIVES, n=1)
        raise ConfigError(
            f"there is no objective {objective!r}; {f'did you mean {near[0]!r}? ' if near else ''}objectives: {', '.join(OBJECTIVES)}"
        )
    # its numbers alone: a choice such as d3po's clip stays as the recipe has it
    own = {f"objective.{objective}.{key}": str(value) for key, value in default_settings(objective).items() if isinstance(value, float)}
    return {"objective.name": objective, **own, **OBJECTIVES[objective].settings}


def settings_for_feedback(feedback: str, said: Mapping[str, str]) -> dict[str, str]:
    """The settings of a run that is judged by `feedback`: people are asked for the best and the worst of four, unless `said` asks otherwise."""
    asked = {"feedback.ask": "best_worst", "sampling.images_per_prompt": "4"} if feedback == "human" and "feedback.ask" not in said else {}
    return {"feedback.source": feedback, **asked}


def prompts_for(
    begun: Start, prompts: Path | None, held_out: Path | None, *, skip_empty: bool = False, say: Say = lambda _: None
) -> tuple[list[str], list[str]]:
    """Training and held-out prompts: from the files, else the recipe's, else the model's own or what takes their place.

    What is left out of the files is said.

    Raises:
        ConfigError: the model needs prompts and no file is given.
        PromptError: a file cannot be used.
    """
    if prompts is None and (own := recipe_prompts(begun.config.recipe)) is not None:
        prompts, held_out = own[0], held_out or own[1]
    if begun.needs_prompts and prompts is None:
        raise ConfigError(f"model {begun.config.model!r} needs prompts; give a file with one a line by --prompts")
    if prompts is None and not begun.has_prompts:
        return numbered_starts(begun.config)
    return choose_prompts(prompts, held_out, skip_empty=skip_empty, say=say)


def numbered_starts(config: RunConfig) -> tuple[list[str], list[str]]:
    """What stands in for prompts where the model takes none: names of starting noises, for training and held out."""
    count = max(STARTS, config.sampling.prompts_per_round)
    return [f"start {i:04}" for i in range(count)], [f"held-out start {i:04}" for i in range(config.evaluation.prompts)]
