"""The settings that a new run begins with: the recipe's, those that the model's family proposes, and the user's."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from d3po.config import RunConfig, override
from d3po.embedded import EMBEDDED
from d3po.errors import ConfigError
from d3po.models.families import Family, family_of, proposed_for
from d3po.objectives.registry import OBJECTIVES, default_settings
from d3po.recipes import recipe_prompts
from d3po.run.places import whole_paths
from d3po.run.prompts import Say, choose_prompts

STARTS = 64
"""How many starting noises an unconditional model is trained on, if its settings ask for no more."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """The configuration of a new run, and where it came from."""

    config: RunConfig
    family: Family | None
    """The model's family. None for the recipe's model and for embedded ones, whose settings are in the recipe."""
    proposed: dict[str, str]
    """The settings that the family proposes in place of the recipe's."""

    @property
    def needs_prompts(self) -> bool:
        """Whether the user has to give prompts."""
        return self.config.model not in EMBEDDED and self.has_prompts

    @property
    def has_prompts(self) -> bool:
        """Whether the model is conditioned on prompts."""
        return self.family is None or self.family.prompts

    def words(self) -> str:
        """Describe the recognised model and the proposed settings in one line."""
        if self.family is None:
            return f"model: {self.config.model}, with the settings of the recipe {self.config.recipe!r}"
        proposed = ", ".join(f"{key} = {value}" for key, value in self.proposed.items())
        return f"model: {self.family.title}" + (f"; proposed for it: {proposed}" if proposed else "")


def start(recipe: RunConfig, assignments: dict[str, str], *, where: str = "--set") -> Start:
    """Combine a recipe with the user's settings.

    With the recipe `default`, settings that the model's family proposes replace the recipe's. The user's settings win over both.

    Args:
        recipe: the recipe's configuration.
        assignments: the user's settings, as dotted keys and values in TOML.
        where: the source of the assignments, for messages.

    Raises:
        ConfigError: a setting is unknown or out of range.
        ModelError: the model is not found, or belongs to no known family.
    """
    said = override(recipe, assignments, where=where)
    config = whole_paths(said)
    if said.model == recipe.model or said.model in EMBEDDED:
        return Start(config=config, family=None, proposed={})
    family = family_of(config.model)
    proposed = (
        {key: value for key, value in proposed_for(family, config.model).items() if key not in assignments}
        if recipe.recipe == "default"
        else {}
    )
    return Start(config=override(config, proposed, where=family.name), family=family, proposed=proposed)


def settings_for_objective(objective: str) -> dict[str, str]:
    """The settings with which a run trains by an objective as recommended: its name, its defaults, and the other settings it needs.

    Raises:
        ConfigError: there is no objective of that name; the message suggests the nearest.
    """
    if objective not in OBJECTIVES:
        near = difflib.get_close_matches(objective, OBJECTIVES, n=1)
        raise ConfigError(
            f"there is no objective {objective!r}; {f'did you mean {near[0]!r}? ' if near else ''}objectives: {', '.join(OBJECTIVES)}"
        )
    # only numbers: a choice such as d3po's clip stays as the recipe sets it
    defaults = {
        f"objective.{objective}.{key}": str(value) for key, value in default_settings(objective).items() if isinstance(value, float)
    }
    return {"objective.name": objective, **defaults, **OBJECTIVES[objective].settings}


def settings_for(objective: str, feedback: str, said: Mapping[str, str]) -> dict[str, str]:
    """The settings that follow from an objective and from who compares, each empty if the user named none, and those the user has set, which win.

    Raises:
        ConfigError: there is no objective of that name.
    """
    return (
        (settings_for_objective(objective) if objective else {}) | (settings_for_feedback(feedback, said) if feedback else {}) | dict(said)
    )


def settings_for_feedback(feedback: str, said: Mapping[str, str]) -> dict[str, str]:
    """The settings of a run that `feedback` judges: people choose the best and the worst of four, except if `said` has another question kind."""
    asked = {"feedback.ask": "best_worst", "sampling.images_per_prompt": "4"} if feedback == "human" and "feedback.ask" not in said else {}
    return {"feedback.source": feedback, **asked}


def prompts_for(
    begun: Start, prompts: Path | None, held_out: Path | None, *, skip_empty: bool = False, say: Say = lambda _: None
) -> tuple[list[str], list[str]]:
    """Training and held-out prompts: from the files, else from the recipe, else the embedded model's. Models without prompts get numbered starts.

    Dropped duplicates are reported through `say`.

    Raises:
        ConfigError: the model needs prompts and no file is given.
        PromptError: a file cannot be used.
    """
    if prompts is None and (lists := recipe_prompts(begun.config.recipe)) is not None:
        prompts, held_out = lists[0], held_out or lists[1]
    if begun.needs_prompts and prompts is None:
        raise ConfigError(f"model {begun.config.model!r} needs prompts; pass a file with one prompt a line as --prompts")
    if prompts is None and not begun.has_prompts:
        return numbered_starts(begun.config)
    return choose_prompts(prompts, held_out, embedded=begun.config.model, skip_empty=skip_empty, say=say)


def numbered_starts(config: RunConfig) -> tuple[list[str], list[str]]:
    """Names of starting noises, for training and held out, which take the place of prompts where the model takes none."""
    count = max(STARTS, config.sampling.prompts_per_round)
    return [f"start {i:04}" for i in range(count)], [f"held-out start {i:04}" for i in range(config.evaluation.prompts)]
