"""`python -m tools.docs` writes docs/configuration.md from the settings in `d3po.config`; `--check` only says whether it is current."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from d3po.config import RunConfig, Section

CONFIGURATION = Path(__file__).parents[1] / "docs" / "configuration.md"

HEADING = """\
# Configuration

<!-- Written by `python -m tools.docs` from src/d3po/config.py; edit the descriptions there. -->

A run's settings are in `run.toml` in its folder. `d3po init` writes it complete, every setting with its value and a word on it; a recipe
changes some of the defaults below. An unknown key is refused, and the nearest known one is suggested. Values are not coerced: `"4"` is not `4`.
Once a run has begun, `rounds`, `recipe`, `[guards]` and `[tracking]` may still change; everything else decided what was already made and needs
a new folder.
"""

BOUNDS = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}


def configuration_page() -> str:
    """The whole of docs/configuration.md."""
    lines = [HEADING, "## Top level", "", *_table(RunConfig)]
    for name, field in RunConfig.model_fields.items():
        section = field.annotation
        if _is_section(section):
            lines += ["", f"## `[{name}]`", "", (section.__doc__ or "").strip(), "", *_table(section)]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or with --check return 1 if it is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if docs/configuration.md is not current")
    page = configuration_page()
    if not parser.parse_args(arguments).check:
        CONFIGURATION.write_text(page, encoding="utf-8")
        return 0
    if CONFIGURATION.exists() and CONFIGURATION.read_text(encoding="utf-8") == page:
        return 0
    print("docs/configuration.md is not what src/d3po/config.py says; run `python -m tools.docs` and commit the result", file=sys.stderr)
    return 1


def _table(section: type[Section]) -> Iterator[str]:
    yield "| setting | values | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in section.model_fields.items():
        if not _is_section(field.annotation):
            yield f"| `{name}` | {_values(field)} | `{_toml(field.default)}` | {field.description} |"


def _values(field: FieldInfo) -> str:
    constraints = [bound for item in field.metadata for bound in _bounds(item)]
    return ", ".join([_type(field.annotation), *constraints])


def _type(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return ", ".join([_type(arguments[0]), *(bound for item in arguments[1:] for bound in _bounds(item))])
    if origin is Literal:
        return ", ".join(f"`{_toml(value)}`" for value in arguments)
    if origin in (Union, UnionType):
        return ", ".join(map(_type, arguments))
    if origin is tuple:
        return f"[{', '.join(map(_type, arguments))}]"
    return {int: "whole number", float: "number", str: "text", bool: "`true`, `false`"}[kind]


def _bounds(item: Any) -> Iterator[str]:
    for part in getattr(item, "metadata", [item]):
        if type(part) in BOUNDS:
            attribute, sign = BOUNDS[type(part)]
            yield f"{sign} {getattr(part, attribute)}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


if __name__ == "__main__":
    sys.exit(main())
