"""`python -m tools.docs` writes docs/configuration.md from the settings in `d3po.config`, docs/store.md from the tables in
`d3po.store.tables`, and the tables in docs/families.md, docs/scorers.md, docs/recipes.md and docs/methods/README.md from `d3po.models.families`,
`d3po.scorers.catalogue`, `d3po.recipes` and `d3po.objectives.registry`; `--check` only reports whether they are current."""

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from sqlalchemy import CheckConstraint, Column, Constraint, ForeignKeyConstraint, Index, Table, UniqueConstraint

from d3po.config import RunConfig
from d3po.models.families import table as families_table
from d3po.objectives.registry import table as objectives_table
from d3po.recipes import table as recipes_table
from d3po.run.folder import CHANGEABLE
from d3po.scorers.catalogue import table as scorers_table
from d3po.section import Section
from d3po.store.tables import Base

CONFIGURATION = Path(__file__).parents[1] / "docs" / "configuration.md"
STORE = Path(__file__).parents[1] / "docs" / "store.md"
FAMILIES = Path(__file__).parents[1] / "docs" / "families.md"
SCORERS = Path(__file__).parents[1] / "docs" / "scorers.md"
RECIPES = Path(__file__).parents[1] / "docs" / "recipes.md"
METHODS = Path(__file__).parents[1] / "docs" / "methods" / "README.md"
TABLE = re.compile(r"(<!-- table: begin, .*? -->\n).*?(<!-- table: end -->)", re.DOTALL)

HEADING = """\
# Configuration

<!-- Written by `python -m tools.docs` from src/d3po/config.py; edit the descriptions there. -->

A run's settings are in `run.toml` in its folder. `d3po init` writes it complete, every setting with its value and a comment; a recipe
changes some of the defaults below. An unknown key is refused, and the nearest known one is suggested. Values are not coerced: `"4"` is not `4`.
Once a run has begun, a change of a setting needs a new folder, because earlier results depend on it. These may still change: {changeable}.
"""

STORE_HEADING = """\
# The store

<!-- Written by `python -m tools.docs` from src/d3po/store/tables.py; edit the descriptions there. -->

A run's database, `d3po.db` in its folder or a `postgresql://` URL, contains everything known about its pictures, the questions asked about them and the
answers. The trainer and the rating server share the database and the pictures, and nothing else. The constraints below make invalid states impossible,
whichever process writes, and however many do. Times are milliseconds since 1970 (UTC); ids of votes and assignments are UUIDs as text.

`vote`, `vote_item`, `feedback_batch_vote` and `audit_log` are append-only: triggers refuse to update or delete their rows. If an answer is changed or
withdrawn, a new row of `vote` supersedes the old one. Tables are made and changed by the migrations in `d3po/store/migrations`, when a database is opened.
How the store is tested, and how fast it is, is described in [reliability](reliability.md).
"""

BOUNDS = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}


def configuration_page() -> str:
    """The content of docs/configuration.md."""
    lines = [HEADING.format(changeable=", ".join(_changeable())), "## Top level", "", *_table(RunConfig)]
    for name, field in RunConfig.model_fields.items():
        section = field.annotation
        if _is_section(section):
            lines += ["", f"## `[{name}]`", "", (section.__doc__ or "").strip(), "", *_table(section)]
            for inner, its in section.model_fields.items():
                if _is_section(its.annotation) and its.annotation.model_fields:
                    lines += ["", f"### `[{name}.{inner}]`", "", (its.annotation.__doc__ or "").strip(), "", *_table(its.annotation)]
    return "\n".join(lines) + "\n"


def _changeable() -> Iterator[str]:
    """The settings that may change in a run that has begun; a section in brackets stands for all of its settings."""
    for name, keys in CHANGEABLE.items():
        if isinstance(keys, set):
            yield from (f"`{name}.{key}`" for key in sorted(keys))
        else:
            yield f"`[{name}]`" if _is_section(RunConfig.model_fields[name].annotation) else f"`{name}`"


def store_page() -> str:
    """The content of docs/store.md."""
    lines = [STORE_HEADING]
    places = list(Base.metadata.tables.values())
    for mapper in sorted(Base.registry.mappers, key=lambda mapper: places.index(mapper.local_table)):  # pyright: ignore[reportArgumentType]
        table = mapper.local_table
        assert isinstance(table, Table)
        lines += [f"## `{table.name}`", "", " ".join((mapper.class_.__doc__ or "").split()), "", *_columns(table), "", *_rules(table), ""]
    return "\n".join(lines)


def families_page(page: str) -> str:
    """docs/families.md with the table of families replaced."""
    return _with_table(page, families_table())


def scorers_page(page: str) -> str:
    """docs/scorers.md with the table of scorers replaced."""
    return _with_table(page, scorers_table())


def objectives_page(page: str) -> str:
    """docs/methods/README.md with the table of objectives replaced."""
    return _with_table(page, objectives_table())


def recipes_page(page: str) -> str:
    """docs/recipes.md with the table of recipes replaced."""
    return _with_table(page, recipes_table())


def main(arguments: list[str] | None = None) -> int:
    """Write the pages and return 0, or with --check return 1 if one is not current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a page is not current")
    pages = {CONFIGURATION: configuration_page(), STORE: store_page()}
    tables = ((FAMILIES, families_page), (SCORERS, scorers_page), (RECIPES, recipes_page), (METHODS, objectives_page))
    pages |= {path: write(path.read_text(encoding="utf-8")) for path, write in tables}
    if not parser.parse_args(arguments).check:
        for path, page in pages.items():
            path.write_text(page, encoding="utf-8")
        return 0
    stale = [path for path, page in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != page]
    for path in stale:
        print(f"docs/{path.name} is not what the code says; run `python -m tools.docs` and commit the result", file=sys.stderr)
    return 1 if stale else 0


def _with_table(page: str, rows: Iterable[list[str]]) -> str:
    """Replace the table between a page's marks."""
    heading, *body = rows
    lines = "".join(f"| {' | '.join(cells)} |\n" for cells in (heading, ["---"] * len(heading), *body))
    return TABLE.sub(lambda marks: marks[1] + lines + marks[2], page)


def _columns(table: Table) -> Iterator[str]:
    yield "| column | type | meaning |"
    yield "|---|---|---|"
    for column in table.columns:
        yield f"| `{column.name}` | {_column_type(column)} | {_meaning(column)} |"


def _column_type(column: Column[Any]) -> str:
    names = {
        "INTEGER": "integer",
        "BIGINT": "integer, 64 bits",
        "BOOLEAN": "true or false",
        "VARCHAR": "text",
        "JSON": "JSON",
        "FLOAT": "number",
        "DOUBLE": "number",
    }
    return names[str(column.type)] + (", or null" if column.nullable else "")


def _meaning(column: Column[Any]) -> str:
    keys = ", ".join(
        f"of [`{key.column.table.name}`](#{key.column.table.name})" for key in column.foreign_keys if not _is_composite(key.constraint)
    )
    parts = ["primary key" if column.primary_key else "", keys, column.comment or ""]
    return "; ".join(part for part in parts if part)


def _rules(table: Table) -> Iterator[str]:
    """The constraints and indices of a table, one line each."""
    for rule in sorted(table.constraints, key=_order):
        if isinstance(rule, UniqueConstraint):
            yield f"* unique: {_names(rule)}"
        elif isinstance(rule, CheckConstraint):
            yield f"* {str(rule.name).replace('_', ' ')}: `{rule.sqltext}`"
        elif isinstance(rule, ForeignKeyConstraint) and _is_composite(rule):
            yield f"* {_names(rule)} together are a row of [`{rule.referred_table.name}`](#{rule.referred_table.name})"
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        where = index.dialect_options["sqlite"]["where"]
        yield f"* {'unique' if index.unique else 'index'}: {_names(index)}" + (f" where `{where}`" if where is not None else "")


def _order(rule: Constraint) -> tuple[str, ...]:
    words = str(rule.sqltext) if isinstance(rule, CheckConstraint) else _names(rule)  # type: ignore[arg-type]
    return type(rule).__name__, str(rule.name or ""), words


def _names(rule: UniqueConstraint | ForeignKeyConstraint | Index) -> str:
    return ", ".join(f"`{column.name}`" for column in rule.columns)


def _is_composite(rule: Any) -> bool:
    return rule is not None and len(rule.columns) > 1


def _table(section: type[Section]) -> Iterator[str]:
    yield "| setting | values | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in section.model_fields.items():
        if not _is_section(field.annotation):
            yield f"| `{name}` | {_values(field)} | `{_toml(field.default)}` | {field.description} |"


def _values(field: FieldInfo) -> str:
    return ", ".join([_type(field.annotation), *_bounds(field.metadata)])


def _type(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return f"{_type(arguments[0])} {' and '.join(_bounds(arguments[1:]))}".strip()
    if origin is Literal:
        return ", ".join(f"`{_toml(value)}`" for value in arguments)
    if origin in (Union, UnionType):
        return ", ".join(map(_type, arguments))
    if origin is list:
        return f"[{_type(arguments[0])}, ...]"
    if origin is tuple:
        return f"[{', '.join(map(_type, arguments))}]"
    return {int: "whole number", float: "number", str: "text", bool: "`true`, `false`"}[kind]


def _bounds(metadata: Iterable[Any]) -> list[str]:
    """The bounds of a setting, the lower one first."""
    parts = [part for item in metadata for part in getattr(item, "metadata", [item]) if type(part) in BOUNDS]
    parts.sort(key=lambda part: isinstance(part, Le | Lt))
    return [f"{sign} {getattr(part, attribute)}" for part in parts for attribute, sign in [BOUNDS[type(part)]]]


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _is_section(kind: object) -> TypeGuard[type[Section]]:
    return isinstance(kind, type) and issubclass(kind, Section)


if __name__ == "__main__":
    sys.exit(main())
