"""The file that `d3po compare` reads: what is to be compared."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from d3po.config import LARGEST_SEED, Count, Section, parse, read_toml
from d3po.embedded import DEFAULT

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
Unit = Literal["labels", "images", "network_rows", "minutes"]

TAKEN = {
    "model": "`model`",
    "recipe": "`recipe`",
    "seed": "`seeds`",
    "rounds": "`[budget]`",
    "feedback.reward": "`rewards`",
    "objective.name": "`name` of an entry of `objectives`",
}
"""Settings of a run that must be given by another key of the comparison."""

FIXED = {"database": "each cell has a separate database", "feedback.source": "pictures are compared by rewards in all cells"}
"""Settings of a run that cannot be changed in a comparison, and why."""


def _flat(tables: object) -> object:
    """Flatten tables of settings to dotted keys, so that `sampling.steps = 5` and `"sampling.steps" = 5` mean the same."""
    if not isinstance(tables, Mapping):
        return tables
    flat: dict[str, Any] = {}
    for key, value in tables.items():
        inner = _flat(value)
        flat |= {f"{key}.{name}": each for name, each in inner.items()} if isinstance(inner, Mapping) else {key: value}
    return flat


def _named(entries: object) -> object:
    """Turn the bare name of an objective into an entry with that label."""
    if not isinstance(entries, list):
        return entries
    return [{"label": entry, "name": entry} if isinstance(entry, str) else entry for entry in entries]


def _require_free(settings: dict[str, Any]) -> dict[str, Any]:
    for key in settings:
        if key in TAKEN:
            raise ValueError(f"settings contain {key!r}, which a comparison sets by {TAKEN[key]}; write it there")
        if key in FIXED:
            raise ValueError(f"settings contain {key!r}, but {FIXED[key]}; remove it")
    return settings


Settings = Annotated[dict[str, Any], BeforeValidator(_flat), Field(default_factory=dict)]


class ObjectiveSpec(Section):
    """One entry of the comparison: an objective, or a variant of one."""

    label: Label = Field(description="its name in tables and folders")
    name: str = Field(
        default="", description="the objective, with its default settings in place of the recipe's; empty is the recipe unchanged"
    )
    settings: Settings = Field(description="dotted keys of run.toml, for this entry alone")

    @model_validator(mode="after")
    def _free(self) -> "ObjectiveSpec":
        _require_free(self.settings)
        return self


class EqualBudget(Section):
    """What every cell may spend: exactly one of these."""

    labels: Count | None = Field(
        default=None, description="compared pairs; for objectives that learn from single pictures, labelled pictures"
    )
    images: Count | None = Field(default=None, description="pictures sampled to learn from")
    network_rows: Count | None = Field(default=None, description="forward passes of the network in sampling and training")
    minutes: Annotated[float, Field(gt=0)] | None = Field(default=None, description="minutes of sampling, comparing and training")

    @model_validator(mode="after")
    def _one(self) -> "EqualBudget":
        if len(self.model_fields_set) != 1:
            raise ValueError(
                f"[budget] sets {len(self.model_fields_set)} of {', '.join(type(self).model_fields)}; set exactly one of them, "
                "the one that is to be equal"
            )
        return self

    @property
    def unit(self) -> Unit:
        """The key that is set."""
        return next(iter(self.model_fields_set))  # pyright: ignore[reportReturnType]

    @property
    def amount(self) -> int | float:
        """The value of the key that is set."""
        return getattr(self, self.unit)


class Spec(Section):
    """A whole comparison."""

    model: str = Field(default=DEFAULT, description="as in run.toml")
    recipe: str = Field(default="default", description="the recipe from which all cells start")
    prompts: str = Field(default="", description="a file of prompts to train on, as `d3po init --prompts`")
    held_out: str = Field(default="", description="a file of prompts for evaluation only, as `d3po init --held-out`")
    objectives: Annotated[list[ObjectiveSpec], BeforeValidator(_named), Field(min_length=1)] = Field(
        description="names of objectives, or tables with label, name and settings"
    )
    rewards: Annotated[list[str], Field(min_length=1)] = Field(description="rewards to train for, each in separate runs")
    held_out_rewards: list[str] = Field(
        default=[], description="rewards that are measured on the same held-out pictures and never trained for"
    )
    seeds: Annotated[list[Annotated[int, Field(ge=0, le=LARGEST_SEED)]], Field(min_length=1)] = Field(
        description="seeds, one run each; differences between objectives are paired by seed"
    )
    baseline: str = Field(description="the label with which the others are compared")
    budget: EqualBudget
    settings: Settings = Field(description="dotted keys of run.toml, for all entries")

    @model_validator(mode="after")
    def _consistent(self) -> "Spec":
        _require_free(self.settings)
        labels = [entry.label for entry in self.objectives]
        for key, values in (
            ("objectives", labels),
            ("rewards", [slug(reward) for reward in self.rewards]),
            ("held_out_rewards", self.held_out_rewards),
            ("seeds", self.seeds),
        ):
            doubled = [value for value, count in Counter(values).items() if count > 1]
            if doubled:
                raise ValueError(f"{key} names {doubled[0]!r} more than once; keep one of each, and give variants different labels")
        if self.baseline not in labels:
            raise ValueError(f"baseline is {self.baseline!r}, which is not one of the labels ({', '.join(labels)}); set it to one of them")
        return self


def unit_in_words(unit: Unit) -> str:
    """The unit of a budget as texts name it."""
    return {"network_rows": "forward passes"}.get(unit, unit)


def slug(reward: str) -> str:
    """A reward's name in a form that a folder's name can hold."""
    return "-".join("".join(letter if letter.isalnum() or letter == "_" else " " for letter in reward).split())


def load_spec(path: Path) -> Spec:
    """Read and validate the file of a comparison.

    Raises:
        ConfigError: unreadable, not TOML, an unknown key (the nearest is suggested) or a value out of range.
    """
    return parse(Spec, read_toml(path), where=str(path))
