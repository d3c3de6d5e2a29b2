"""Recipes: each says what it is for, has prompts enough, and those that extend another change only what they say."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from d3po.cli.app import app
from d3po.config import RunConfig
from d3po.errors import ConfigError
from d3po.recipes import about_recipe, load_recipe, recipe_names, recipe_prompts
from d3po.run.folder import RunFolder
from d3po.run.prompts import read_prompts, shared_prompts
from d3po.text import fold

PAPER_S = [name for name in recipe_names() if about_recipe(name).extends == "paper"]


def test_all_the_papers_experiments_are_there() -> None:
    experiments = {"paper-compressibility", "paper-incompressibility", "paper-aesthetic", "hands", "anime-anatomy", "safety", "alignment"}
    assert set(PAPER_S) == experiments


@pytest.mark.parametrize("name", PAPER_S)
def test_an_experiment_of_the_paper_has_its_objective_and_names_its_numbers(name: str) -> None:
    paper, config = load_recipe("paper"), load_recipe(name)
    assert config.objective.model_copy(update={"reference": paper.objective.reference}) == paper.objective
    assert config.objective.reference == ("fixed" if name.startswith("paper-") else "per_round")
    assert (config.adapter, config.sampling.steps, config.sampling.guidance) == (paper.adapter, 20, 5.0)
    about = about_recipe(name)
    assert "arXiv 2311.13231" in about.published
    assert "not run on a GPU" in about.tested
    assert "estimated" in about.hardware


@pytest.mark.parametrize("name", PAPER_S)
def test_there_are_prompts_enough_and_none_is_both_trained_and_held_out(name: str) -> None:
    files, config = recipe_prompts(name), load_recipe(name)
    assert files is not None
    trained, held_out = map(read_prompts, files)
    assert len(trained) >= config.sampling.prompts_per_round
    assert len(held_out) >= config.evaluation.prompts
    assert not shared_prompts(trained, held_out)
    assert len({*map(fold, trained)}) == len(trained)


def test_the_reward_experiments_add_up_to_the_published_pairs() -> None:
    for name in (name for name in PAPER_S if name.startswith("paper-")):
        config = load_recipe(name)
        assert config.rounds * config.sampling.prompts_per_round * (config.sampling.images_per_prompt // 2) == 30_000


def test_a_table_that_extends_another_keeps_what_it_does_not_name() -> None:
    config = load_recipe("hands")
    assert (config.recipe, config.sampling.images_per_prompt, config.sampling.last_step) == ("hands", 7, "clamped")
    assert load_recipe("default").objective.d3po.clip == "none" != RunConfig().objective.d3po.clip


def test_a_recipe_without_prompts_leaves_them_to_the_user() -> None:
    assert recipe_prompts("paper") is None


def test_init_takes_the_recipes_prompts(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["init", str(tmp_path / "run"), "--recipe", "safety"])
    assert result.exit_code == 0, result.output
    folder = RunFolder(path=tmp_path / "run")
    files = recipe_prompts("safety")
    assert files is not None
    assert [folder.prompts(), folder.held_out()] == [read_prompts(file) for file in files]


def test_recipes_are_listed_with_their_published_numbers() -> None:
    output = CliRunner().invoke(app, ["recipes"]).output
    assert "paper-compressibility: pictures of animals that compress well" in output
    assert "D3PO -16, DDPO -28.5" in output


def test_an_unknown_recipe_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no recipe 'hand'; did you mean 'hands'\?"):
        load_recipe("hand")
