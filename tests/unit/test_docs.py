"""The documentation says what the code does: every setting, metric, error, recipe and command is in it."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest
import torch

from d3po import errors
from d3po.cli.app import app
from d3po.config import RunConfig, Section
from d3po.experiments.findings import Row
from d3po.experiments.spec import EqualBudget, ObjectiveSpec, Spec
from d3po.objective_settings import SETTINGS, ObjectiveName
from d3po.objectives.d3po import D3PO
from d3po.objectives.metrics import pair_metrics
from d3po.objectives.registry import OBJECTIVES, default_settings
from d3po.recipes import recipe_names
from d3po.run.evaluate.phase import EvaluationResult
from d3po.training.trainer import BANDS
from tools.docs import (
    CONFIGURATION,
    FAMILIES,
    METHODS,
    RECIPES,
    SCORERS,
    configuration_page,
    families_page,
    main,
    objectives_page,
    recipes_page,
    scorers_page,
)

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def logged_keys() -> list[str]:
    objective = D3PO(beta=0.1, clip="two_sided", clip_range=0.1)
    a, b, target = torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 1)
    measured = pair_metrics(objective, objective(a, b, target), a, b, target)
    return [*measured, "kl", "kl_to_pretrained", "gradient_norm", "learning_rate"]


def error_names() -> list[str]:
    return [name for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.D3POError)]


def command_names() -> list[str]:
    names = [(command.name, command.callback) for command in app.registered_commands]
    return [name or ("" if function is None else function.__name__) for name, function in names]


def first_column(page: str) -> set[str]:
    """What stands in backquotes in the first cell of a page's table rows."""
    cells = (line.split("|")[1] for line in (DOCS / page).read_text().splitlines() if line.startswith("|"))
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_the_configuration_page_is_current() -> None:
    assert CONFIGURATION.read_text() == configuration_page(), "run `python -m tools.docs` and commit docs/configuration.md"


def test_the_table_of_families_is_current() -> None:
    assert FAMILIES.read_text() == families_page(FAMILIES.read_text()), "run `python -m tools.docs` and commit docs/families.md"


def test_the_table_of_scorers_is_current() -> None:
    assert SCORERS.read_text() == scorers_page(SCORERS.read_text()), "run `python -m tools.docs` and commit docs/scorers.md"


def test_the_table_of_recipes_is_current() -> None:
    assert RECIPES.read_text() == recipes_page(RECIPES.read_text()), "run `python -m tools.docs` and commit docs/recipes.md"


def test_the_table_of_objectives_is_current() -> None:
    assert METHODS.read_text() == objectives_page(METHODS.read_text()), "run `python -m tools.docs` and commit docs/methods/README.md"


def test_the_configuration_page_names_every_setting() -> None:
    tables = {name: type(value) for name, value in RunConfig() if isinstance(value, Section)}
    sections = {"": RunConfig, **tables, **{f"objective.{name}": own for name, own in SETTINGS.items()}}
    settings = {name for section in sections.values() for name in section.model_fields} - tables.keys() - SETTINGS.keys()
    assert settings <= first_column("configuration.md")
    assert all(f"### `[objective.{name}]`" in CONFIGURATION.read_text() for name, own in SETTINGS.items() if own.model_fields)
    assert all(f"## `[{table}]`" in CONFIGURATION.read_text() for table in tables)


def test_every_setting_says_what_it_means() -> None:
    for row in CONFIGURATION.read_text().splitlines():
        assert "None |" not in row, f"a setting without a description: {row}"


def test_check_finds_a_stale_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "configuration.md"
    page.write_text(configuration_page() + "a hand-made change\n")
    monkeypatch.setattr("tools.docs.CONFIGURATION", page)
    assert main(["--check"]) == 1
    assert "python -m tools.docs" in capsys.readouterr().err
    assert main([]) == 0
    assert main(["--check"]) == 0


@pytest.mark.parametrize("key", logged_keys())
def test_every_logged_metric_is_explained(key: str) -> None:
    assert key in first_column("metrics.md")


@pytest.mark.parametrize("band", BANDS)
def test_the_bands_of_metrics_are_explained(band: str) -> None:
    assert f"NAME/{band}" in (DOCS / "metrics.md").read_text()


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(EvaluationResult)])
def test_every_evaluation_figure_is_explained(field: str) -> None:
    assert field in first_column("metrics.md")


def test_every_key_and_column_of_a_comparison_is_explained() -> None:
    keys = {name for section in (Spec, ObjectiveSpec, EqualBudget) for name in section.model_fields}
    columns = {field.name for field in dataclasses.fields(Row)} - {"held_out_gain"}
    assert keys | columns <= first_column("comparing.md")


@pytest.mark.parametrize("name", error_names())
def test_every_error_is_documented(name: str) -> None:
    assert name in first_column("architecture.md")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_has_a_page_with_its_own_values(name: ObjectiveName) -> None:
    page = (DOCS / "methods" / f"{name}.md").read_text()
    rows = {words: cells[1] for row in page.splitlines() if (cells := row.strip("|").split("|")) and (words := cells[0]) and len(cells) > 2}
    numbers = {key: value for key, value in default_settings(name).items() if isinstance(value, float)}
    for key, value in numbers.items():
        (row,) = (rows[words] for words in rows if f"`{key}`" in words)
        assert f"{value:g}" in row or f"{value:.0e}".replace("e-0", "e-") in row
    assert all(part in page for part in ("**Idea.**", "**When.**", "**Healthy**", "**Failing**"))
    assert f"]({name}.md)" in (DOCS / "methods" / "README.md").read_text()


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_documented(name: str) -> None:
    assert name in first_column("recipes.md")


@pytest.mark.parametrize("name", command_names())
def test_every_command_has_an_example_in_the_readme(name: str) -> None:
    assert re.search(rf"^d3po {name}\b", (ROOT / "README.md").read_text(), re.MULTILINE), f"README.md shows no line `d3po {name} ...`"


NAMED_BY = {
    "An objective": "kto",
    "A scorer": "brightness",
    "A question kind": "grid",
    "A model family": "pixart",
    "A sampler": "euler_ancestral",
}
"""For each of CONTRIBUTING's recipes, one of the things that it says how to add."""
OTHER_MEANINGS = re.compile(r"exchange/formats/|store/migrations/|assets/|recipes/")
"""Files that may contain the name of such a thing for another reason: formats of other tools, the tables' history."""


def recipe_for(thing: str) -> str:
    """The part of CONTRIBUTING.md that says how to add it."""
    return (ROOT / "CONTRIBUTING.md").read_text().split(f"\n**{thing}.**")[1].split("\n**")[0].split("\n## ")[0]


@pytest.mark.parametrize("thing", NAMED_BY)
def test_a_recipe_for_adding_names_every_file_that_contains_the_name(thing: str) -> None:
    recipe, source = recipe_for(thing), ROOT / "src" / "d3po"
    files = [path for kind in ("py", "js") for path in source.rglob(f"*.{kind}")]
    quoted = re.compile(rf"""["'`]{NAMED_BY[thing]}["'`]|from "./{NAMED_BY[thing]}.js\"""")
    found = [path.relative_to(source).as_posix() for path in files if quoted.search(path.read_text())]
    unnamed = [
        name
        for name in found
        if not OTHER_MEANINGS.search(name) and not any(part in recipe for part in (f"`{name}`", Path(name).name, f"`{Path(name).parent}/`"))
    ]
    assert found
    assert unnamed == []


@pytest.mark.parametrize("thing", [*NAMED_BY, "A command", "A setting"])
def test_the_files_that_a_recipe_names_exist(thing: str) -> None:
    named = re.findall(r"`([\w./]+(?:\.py|\.js|\.md|/))`", recipe_for(thing).replace("NAME", NAMED_BY.get(thing, "")))
    roots = (ROOT, ROOT / "src" / "d3po", ROOT / "src" / "d3po" / "web" / "static" / "modes")
    assert named
    assert [name for name in named if not any((root / name).exists() for root in roots)] == []


@pytest.mark.parametrize(
    "page", [*sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")), "../README.md", "../CONTRIBUTING.md"]
)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    path = DOCS / page
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", path.read_text())
    missing = [target for target in targets if not (path.parent / target).exists() and not target.endswith("demo.png")]
    assert not missing
