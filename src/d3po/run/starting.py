"""The settings a new run begins with: the recipe's, what its model's family proposes, and what the user says."""

import difflib
from dataclasses import dataclass

from d3po.config import RunConfig, override
from d3po.errors import ConfigError
from d3po.models.families import EMBEDDED, Family, family_of
from d3po.objectives.registry import OBJECTIVES

STARTS = 64
"""Starting noises of a run without prompts, if its settings ask for no more."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A configuration, and where it came from."""

    config: RunConfig
    family: Family | None
    """None: a hub id, whose family shows when it is loaded."""

    @property
    def needs_prompts(self) -> bool:
        """Whether the user has to give prompts."""
        return self.config.model != EMBEDDED and (self.family is None or self.family.prompts)

    @property
    def has_prompts(self) -> bool:
        """Whether the model is told anything by a prompt."""
        return self.family is None or self.family.prompts

    def words(self) -> str:
        """What was recognised, in one line."""
        if self.family is None:
            return f"{self.config.model} is not on this machine; its family will show when it is loaded"
        proposed = ", ".join(f"{key} = {value}" for key, value in self.family.proposes.items())
        return f"model: {self.family.title}" + (f"; proposed for it: {proposed}" if proposed else "")


def start(recipe: RunConfig, assignments: dict[str, str]) -> Start:
    """The recipe's settings for the model; `default` takes what the model's family proposes, and assignments win over both.

    Raises:
        ModelError: the model lies here but is of no family that is known.
    """
    config = override(recipe, assignments, where="--set")
    family = family_of(config.model)
    if family is not None and recipe.recipe == "default" and config.model != EMBEDDED:
        config = override(config, {key: value for key, value in family.proposes.items() if key not in assignments}, where=family.name)
    return Start(config=config, family=family)


def own_settings(objective: str) -> dict[str, str]:
    """The settings that make a run train by an objective as it wants to be run.

    Raises:
        ConfigError: there is none of that name; the message suggests the nearest.
    """
    if objective not in OBJECTIVES:
        near = difflib.get_close_matches(objective, OBJECTIVES, n=1)
        raise ConfigError(
            f"there is no objective {objective!r}; {f'did you mean {near[0]!r}? ' if near else ''}objectives: {', '.join(OBJECTIVES)}"
        )
    own = {f"objective.{key}": "0" for key in OBJECTIVES[objective].own}
    return {"objective.name": objective, **own, **OBJECTIVES[objective].settings}


def numbered_starts(config: RunConfig) -> tuple[list[str], list[str]]:
    """What stands in for prompts where the model takes none: names of starting noises, for training and held out."""
    count = max(STARTS, config.sampling.prompts_per_round)
    return [f"start {i:04}" for i in range(count)], [f"held-out start {i:04}" for i in range(config.evaluation.prompts)]
