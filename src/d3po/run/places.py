"""Files and folders that settings name. Their paths are stored as absolute paths, and moved ones are recognised by a hash of their content."""

import copy
import hashlib
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from d3po.artifacts.files import sha256
from d3po.config import RunConfig, parse_config
from d3po.embedded import DEFAULT, EMBEDDED, FORMER
from d3po.errors import ConfigError
from d3po.models.families import CUSTOM
from d3po.scorers.catalogue import SCORERS

DECISIVE = ("model", "parts", "adapter.start_from", "sampling.inpaint_image", "sampling.inpaint_mask")
"""Settings that name a file or folder on which results depend."""
NAMED = (*DECISIVE, "hardware.deepspeed")
"""Settings that name a file or folder."""
SCORER_SETTINGS = ("feedback.reward", "evaluation.held_out_reward")
"""Settings that name scorers, whose argument may be a folder."""
WITH_ARGUMENT = re.compile(rf"\b({'|'.join(map(re.escape, SCORERS))}):([^+]+)")
LOADED = (".json", ".safetensors", ".txt", ".model")
"""Suffixes of the files that are read in a model folder."""
WEIGHTS = (".safetensors",)
"""Suffixes of the files that make an embedded model what it is."""


def whole_paths(config: RunConfig) -> RunConfig:
    """Return the settings with absolute paths for existing files and folders, so that they are found from any working directory."""
    values = config.model_dump(mode="json")
    for key in NAMED:
        table, last = _in(values, key)
        if (place := _place(table[last])) is not None:
            table[last] = str(place.absolute())
    for key in SCORER_SETTINGS:
        table, last = _in(values, key)
        table[last] = WITH_ARGUMENT.sub(_whole_argument, table[last])
    return parse_config(values, where="settings")


def contents(config: RunConfig) -> dict[str, str]:
    """The SHA-256 of each embedded model, existing file or folder on which results depend, by the setting that names it."""
    values = config.model_dump(mode="json")
    found = {key: _content(_value(values, key)) for key in DECISIVE}
    return {key: content for key, content in found.items() if content is not None}


def content_of(place: Path, suffixes: tuple[str, ...] = LOADED) -> str:
    """The SHA-256 of a file, or of the names and bytes of a folder's files with these suffixes. Hidden files are left out."""
    if place.is_file():
        return sha256(place)
    within = sorted(file.relative_to(place) for file in place.rglob("*") if file.suffix in suffixes and file.is_file())
    shown = [name for name in within if not any(part.startswith(".") for part in name.parts)]
    return hashlib.sha256("\n".join(f"{name.as_posix()} {sha256(place / name)}" for name in shown).encode()).hexdigest()


def follow_moves(before: Mapping[str, Any], now: Mapping[str, Any], known: Mapping[str, str], run: Path) -> dict[str, Any]:
    """Return the settings `before` with the new paths of files and folders that were moved, and the new name of an embedded model.

    Args:
        before: the settings that a run began with.
        now: the present settings.
        known: the result of `contents` when the run began.
        run: the run folder, for messages.

    Raises:
        ConfigError: the content at a new path is not the content that was at the old one, or the embedded model is not the one the run was made with.
    """
    moved = copy.deepcopy({**before})
    for key in DECISIVE:
        old, new = _value(before, key), _value(now, key)
        made_with = known.get(key) or (_of_embedded(FORMER) if key == "model" and old == DEFAULT else None)
        if made_with is None or (new == old and new not in EMBEDDED) or (content := _content(new)) is None:
            continue
        if content != made_with and old in EMBEDDED:
            raise ConfigError(f"{run}: model is {new!r}, but this run was made with {_embedded_as(made_with)}, or start a new run folder")
        if content != made_with:
            raise ConfigError(
                f"{run}: {key} is {new!r}, whose content differs from that of {old!r}, which this run was made with; set it to the new path of that, or "
                "start a new run folder"
            )
        table, last = _in(moved, key)
        table[last] = new
    return moved


def _content(value: Any) -> str | None:
    """The SHA-256 of what a setting's value names. None if it names nothing that exists."""
    if isinstance(value, str) and value in EMBEDDED:
        return _of_embedded(value)
    place = _place(value)
    return None if place is None else content_of(place)


@cache
def _of_embedded(name: str) -> str:
    return content_of(EMBEDDED[name].directory, WEIGHTS)


def _embedded_as(content: str) -> str:
    """Which embedded model has this content, and what to do."""
    name = next((name for name in reversed(EMBEDDED) if _of_embedded(name) == content), None)
    return (
        f"what is now called {name!r}; set model to {name!r}"
        if name
        else "weights that this version of d3po does not have; use the version it was made with"
    )


def _place(value: Any) -> Path | None:
    """The path that a setting's value names. None if it names no file or folder, or if that does not exist."""
    if not isinstance(value, str) or value in ("", *EMBEDDED) or value.startswith(CUSTOM):
        return None
    path = os.path.expanduser(value)  # noqa: PTH111 - the text may be anything
    return Path(path) if os.path.exists(path) else None  # noqa: PTH110


def _whole_argument(found: re.Match[str]) -> str:
    place = _place(found[2])
    return found[0] if place is None else f"{found[1]}:{place.absolute()}"


def _in(values: Any, key: str) -> tuple[dict[str, Any], str]:
    """The table that holds a setting, and the setting's name in it."""
    *tables, last = key.split(".")
    for table in tables:
        values = values.setdefault(table, {})
    return values, last


def _value(values: Mapping[str, Any], key: str) -> Any:
    table, last = _in(values, key)
    return table.get(last, "")
