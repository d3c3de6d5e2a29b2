"""Recipes: complete starting points for a run, one TOML file each, with the numbers to expect in its heading.

A recipe's file overrides the defaults of `d3po.config`; `d3po init --recipe NAME` writes the complete run.toml.
"""

import difflib
import tomllib
from importlib.resources import files

from d3po.config import RunConfig, parse_config
from d3po.errors import ConfigError


def recipe_names() -> list[str]:
    """All recipes shipped here."""
    return sorted(entry.name.removesuffix(".toml") for entry in files(__name__).iterdir() if entry.name.endswith(".toml"))


def load_recipe(name: str) -> RunConfig:
    """The complete configuration of a recipe.

    Raises:
        ConfigError: there is no such recipe; the message suggests the nearest.
    """
    if name not in recipe_names():
        near = difflib.get_close_matches(name, recipe_names(), n=1)
        raise ConfigError(
            f"there is no recipe {name!r}; {f'did you mean {near[0]!r}? ' if near else ''}recipes: {', '.join(recipe_names())}"
        )
    values = tomllib.loads((files(__name__) / f"{name}.toml").read_text())
    return parse_config({"recipe": name, **values}, where=f"recipe {name}")
