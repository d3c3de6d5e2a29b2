"""Recipes: complete starting points for a run, one TOML file each, with the expected numbers in its heading.

A recipe's file overrides the defaults of `d3po.config`, or the settings of the recipe that it `extends`; `d3po init --recipe NAME` writes the complete
run.toml. The table `[about]` says what the recipe is for. Its prompts, if it has any, are in `prompts/`.
"""

import difflib
import tomllib
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from d3po.config import RunConfig, parse_config
from d3po.errors import ConfigError

FOLDER = Path(str(files(__name__)))
HEADING = ["recipe", "what it is for", "published", "hardware and time", "tested"]


class About(BaseModel):
    """The description of a recipe, from its table `[about]`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    what: str
    published: str = ""
    """Published numbers, and where they are published."""
    hardware: str
    tested: str
    prompts: str = ""
    """The name of its prompt list; empty if the user has to give prompts."""
    extends: str = ""
    """The recipe from which the settings are taken that this one does not set."""

    def lines(self, name: str) -> list[str]:
        """Describe the recipe in lines of text, for a terminal."""
        facts = zip(HEADING[2:], self.cells(name)[2:], strict=True)
        return [f"{name}: {self.what}", *(f"  {title:<17} {fact}" for title, fact in facts)]

    def cells(self, name: str) -> list[str]:
        """The recipe as a row of a table with `HEADING`."""
        return [name, self.what, self.published or "-", self.hardware, self.tested]


def recipe_names() -> list[str]:
    """The names of all recipes."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_recipe(name: str) -> RunConfig:
    """Load the complete configuration of a recipe.

    Raises:
        ConfigError: there is no such recipe; the message suggests the nearest.
    """
    return parse_config({"recipe": name, **_settings(name)}, where=f"recipe {name}")


def about_recipe(name: str) -> About:
    """Load the description of a recipe.

    Raises:
        ConfigError: there is no such recipe; the message suggests the nearest.
    """
    return About.model_validate(_read(name)["about"])


def recipe_prompts(name: str) -> tuple[Path, Path] | None:
    """The files of a recipe's training and held-out prompts; None if it has none."""
    prompts = about_recipe(name).prompts
    return (FOLDER / "prompts" / f"{prompts}.txt", FOLDER / "prompts" / f"{prompts}-held-out.txt") if prompts else None


def table() -> Iterable[list[str]]:
    """All recipes as rows of a table, the heading first."""
    return [HEADING, *(about_recipe(name).cells(f"`{name}`") for name in recipe_names())]


def _settings(name: str) -> dict[str, Any]:
    values = _read(name)
    base = About.model_validate(values.pop("about")).extends
    return _over(_settings(base), values) if base else values


def _over(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Merge values over those of the base recipe, table by table."""
    tables = {key: _over(base[key], value) for key, value in values.items() if isinstance(value, dict) and key in base}
    return base | values | tables


def _read(name: str) -> dict[str, Any]:
    if name not in recipe_names():
        near = difflib.get_close_matches(name, recipe_names(), n=1)
        raise ConfigError(f"there is no recipe {name!r}; {f'did you mean {near[0]!r}? ' if near else ''}`d3po recipes` lists them")
    return tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
