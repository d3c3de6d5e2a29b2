"""The file of a comparison: what it makes, and what it refuses."""

from pathlib import Path

import pytest

from d3po.errors import ConfigError
from d3po.experiments.budget import rounds_that_fit, work_of
from d3po.experiments.cells import cells_of, make_folder
from d3po.experiments.spec import EqualBudget, Spec, load_spec, slug
from d3po.recipes import load_recipe
from d3po.run.cost.counting import Shape, work_of_round

HEAD = 'objectives = ["d3po", "kto"]\nrewards = ["warmth", "closeness:#ff0000"]\nseeds = [0, 7]\nbaseline = "d3po"\n'
BUDGET = "[budget]\nlabels = 500\n"
ROOT = Path(__file__).parents[3]
PUBLISHED = ROOT / "examples" / "comparisons"
SHAPE = Shape(steps=10, stochastic=10, trained=5, guided_forwards=2)


def spec(tmp_path: Path, head: str = HEAD, rest: str = BUDGET) -> Spec:
    path = tmp_path / "spec.toml"
    path.write_text(head + rest)
    return load_spec(path)


def refused(tmp_path: Path, head: str = HEAD, rest: str = BUDGET) -> str:
    with pytest.raises(ConfigError) as error:
        cells_of(spec(tmp_path, head, rest))
    message = str(error.value)
    assert "\n" not in message
    return message


def test_the_grid_is_whole_and_a_seed_comes_after_the_other(tmp_path: Path) -> None:
    names = [cell.name for cell in cells_of(spec(tmp_path))]
    assert names == [
        f"{label}.{reward}.{seed}" for seed in (0, 7) for reward in ("warmth", "closeness-ff0000") for label in ("d3po", "kto")
    ]


def test_an_objective_brings_its_own_settings_and_an_entry_its_changes(tmp_path: Path) -> None:
    entries = '[{label = "own", name = "kto"}, {label = "mine", name = "kto", settings = {objective.kto.beta = 7.0}}, {label = "recipe"}]'
    head = f'objectives = {entries}\nrewards = ["warmth"]\nseeds = [3]\nbaseline = "own"\n'
    own, mine, recipe = (
        cell.config for cell in cells_of(spec(tmp_path, head, BUDGET + '[settings]\n"training.epochs" = 9\nsampling.steps = 6\n'))
    )
    assert (own.objective.name, own.objective.kto.beta, own.objective.reference) == ("kto", 1000.0, "fixed")
    assert (mine.objective.kto.beta, mine.training.epochs, mine.sampling.steps, mine.seed) == (7.0, 9, 6, 3)
    tuned = load_recipe("default").objective.d3po.beta
    assert tuned > 0
    assert (recipe.objective.name, recipe.objective.d3po.beta) == ("d3po", tuned), "as the recipe tunes it"


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    assert "did you mean 'rewards'" in refused(tmp_path, HEAD.replace("rewards", "reward"))
    assert "seeds is missing" in refused(tmp_path, HEAD.replace("seeds = [0, 7]\n", ""))
    assert "not one of the labels (d3po, kto)" in refused(tmp_path, HEAD.replace('baseline = "d3po"', 'baseline = "dpo"'))
    assert "objectives names 'd3po' more than once" in refused(tmp_path, HEAD.replace("kto", "d3po"))
    assert "seeds names 7 more than once" in refused(tmp_path, HEAD.replace("[0, 7]", "[7, 7]"))
    assert "objectives.0.label is 'a b'" in refused(tmp_path, HEAD.replace('"d3po", "kto"', '{label = "a b"}'))
    assert "unknown setting 'objectives.0.lable'; did you mean 'label'?" in refused(
        tmp_path, HEAD.replace('"d3po", "kto"', '{label = "a", lable = "b"}')
    )
    assert "objective 'kot' of the comparison: there is no objective 'kot'; did you mean 'kto'?" in refused(
        tmp_path, HEAD.replace("kto", "kot")
    )


def test_exactly_one_budget_is_set(tmp_path: Path) -> None:
    assert "sets 0 of labels, images, network_rows, minutes" in refused(tmp_path, rest="[budget]\n")
    assert "sets 2 of" in refused(tmp_path, rest=BUDGET + "images = 3\n")
    assert "budget.labels is 0" in refused(tmp_path, rest="[budget]\nlabels = 0\n")


def test_settings_that_the_comparison_has_keys_for_are_refused(tmp_path: Path) -> None:
    assert "'rounds', which a comparison sets by `[budget]`" in refused(tmp_path, rest=BUDGET + "[settings]\nrounds = 3\n")
    assert "each cell has a separate database" in refused(tmp_path, rest=BUDGET + '[settings]\ndatabase = "x"\n')
    assert "unknown setting 'training.epoch'" in refused(tmp_path, rest=BUDGET + "[settings]\ntraining.epoch = 3\n")


def test_rewards_become_names_of_folders() -> None:
    assert slug("weighted:0.7*pickscore+3*warmth") == "weighted-0-7-pickscore-3-warmth"


@pytest.mark.parametrize("unit", ["labels", "images", "network_rows"])
@pytest.mark.parametrize("label", ["d3po", "kto"])
def test_as_many_rounds_as_fit_and_not_one_more(tmp_path: Path, unit: str, label: str) -> None:
    config = next(cell.config for cell in cells_of(spec(tmp_path)) if cell.label == label)
    three = getattr(work_of(config, SHAPE, 3), {"network_rows": "forwards"}.get(unit, unit))
    budgets = {amount: EqualBudget.model_validate({unit: amount}) for amount in (three - 1, three)}
    assert [rounds_that_fit(budget, config, SHAPE, label=label) for budget in budgets.values()] == [2, 3]


def test_a_cell_that_does_not_fit_one_round_is_refused(tmp_path: Path) -> None:
    cell = cells_of(spec(tmp_path))[0]
    first = work_of_round(cell.config, SHAPE, 0).labels
    with pytest.raises(ConfigError, match=f"budget.labels is {first - 1}, but one round of 'd3po' takes {first} labels; raise the budget"):
        rounds_that_fit(EqualBudget(labels=first - 1), cell.config, SHAPE, label="d3po")


def test_time_decides_about_rounds_by_running(tmp_path: Path) -> None:
    assert rounds_that_fit(EqualBudget(minutes=0.5), cells_of(spec(tmp_path))[0].config, SHAPE, label="d3po") is None


def test_a_cell_goes_on_with_a_larger_budget_but_not_with_other_settings(tmp_path: Path) -> None:
    cell, other = cells_of(spec(tmp_path))[0], cells_of(spec(tmp_path, rest=BUDGET + "[settings]\ntraining.epochs = 9\n"))[0]
    assert make_folder(cell, tmp_path, rounds=2).config().rounds == 2
    assert make_folder(cell, tmp_path, rounds=5).config().rounds == 5
    assert make_folder(cell, tmp_path, rounds=None).config().rounds == 5
    with pytest.raises(ConfigError, match=r"d3po\.warmth\.0: training\.epochs is 9, but this run was made with 4"):
        make_folder(other, tmp_path, rounds=5)


@pytest.mark.parametrize("path", sorted(PUBLISHED.glob("*.toml")), ids=lambda path: path.stem)
def test_published_comparisons_can_be_run_by_the_command_they_print(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    grid = load_spec(path)
    assert len(cells_of(grid)) == len(grid.objectives) * len(grid.rewards) * len(grid.seeds)
    command = f"d3po compare examples/comparisons/{path.name} runs/{path.stem}"
    assert f"#     {command}" in path.read_text()
    assert path.name in (ROOT / "docs" / "experiments.md").read_text()
