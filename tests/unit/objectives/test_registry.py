"""Every objective can be built as a run.toml builds it, and says what it needs."""

import re
import tomllib

import pytest
import torch
from typer.testing import CliRunner

from d3po.cli.app import app
from d3po.config import RunConfig, dump_config, override
from d3po.errors import ConfigError
from d3po.objective_settings import ObjectiveName
from d3po.objectives.base import ImageObjective, ImageTerms, PairObjective
from d3po.objectives.ddpo import DDPO
from d3po.objectives.dpok import DPOK
from d3po.objectives.kto import KTO
from d3po.objectives.registry import OBJECTIVES, build, default_settings
from d3po.recipes import load_recipe
from d3po.run.needs import check_needs
from d3po.run.starting import settings_for_objective, start


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_is_built_from_a_run_that_names_it(name: ObjectiveName) -> None:
    config = override(RunConfig(), settings_for_objective(name), where="test")
    objective = build(name, **config.objective.settings.model_dump())
    for key, value in default_settings(name).items():
        assert getattr(objective, key) == value
    check_needs(config)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_its_labels_say_which_interface_it_has(name: ObjectiveName) -> None:
    objective, needs = build(name), OBJECTIVES[name].needs
    assert isinstance(objective, PairObjective if needs.labels == "pairs" else ImageObjective)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_better_images_become_likelier(name: ObjectiveName) -> None:
    """The first gradient of every objective raises the better image, and of those that know the worse one, lowers it."""
    objective = build(name)
    ratio = torch.full((1, 2), -0.3 if OBJECTIVES[name].needs.reference == "none" else 0.0, requires_grad=True)
    if isinstance(objective, PairObjective):
        losses = objective(ratio[:, :1], ratio[:, 1:], torch.ones(1, 1))
    else:
        prompts = torch.zeros(2, dtype=torch.long)
        values = objective.values(torch.tensor([1.0, -1.0]), prompts)
        nothing = torch.zeros(1, 2)
        losses = objective(
            ImageTerms(log_ratio=ratio, value=values, prompts=prompts, kl=nothing, change=nothing, reference_error=nothing + 1)
        )
    losses.sum().backward()
    assert ratio.grad is not None
    better, worse = ratio.grad[0].tolist()
    assert better < 0
    assert worse > better


NUMBERS = [(name, key) for name in OBJECTIVES for key, value in default_settings(name).items() if isinstance(value, float)]
MAY_BE_ZERO = {
    ("dpok", "beta"),
    ("kto", "dislike_weight"),
    ("mapo", "beta"),
    ("diffusion_dpo", "winner_safeguard"),
    ("flow_dpo", "winner_safeguard"),
}
"""They switch a part of the loss off; without the others nothing would be left to learn from."""
IMAGE = ImageTerms(log_ratio=torch.tensor([[0.3, -0.2]]), value=torch.tensor([1.0, -1.0]), kl=torch.tensor([[5.0, 7.0]]))


@pytest.mark.parametrize(("name", "key"), NUMBERS)
def test_zero_is_obeyed_or_refused_and_never_the_default(name: ObjectiveName, key: str) -> None:
    zero = {**settings_for_objective(name), f"objective.{name}.{key}": "0"}
    if (name, key) in MAY_BE_ZERO:
        config = override(RunConfig(), zero, where="test")
        assert getattr(build(name, **config.objective.settings.model_dump()), key) == 0
    else:
        with pytest.raises(ConfigError, match=rf"objective\.{name}\.{key} is 0: Input should be greater than 0"):
            override(RunConfig(), zero, where="test")
        with pytest.raises(ValueError, match=rf"{key}\n.*greater than 0"):
            build(name, **{key: 0.0})


def test_dpok_without_its_kl_is_the_policy_gradient_alone() -> None:
    without = build("dpok", beta=0.0)
    assert isinstance(without, DPOK)
    assert without(IMAGE).tolist() == DDPO(clip_range=without.clip_range)(IMAGE).tolist()


def test_kto_without_dislikes_learns_from_likes_alone() -> None:
    without = build("kto", beta=1.0, dislike_weight=0.0)
    assert isinstance(without, KTO)
    losses = without(IMAGE)
    assert losses[0, 0] > 0
    assert losses[0, 1] == 0


def test_mapo_without_its_preference_term_is_the_winners_error() -> None:
    objective = build("mapo", beta=0.0)
    assert isinstance(objective, PairObjective)
    assert objective(torch.tensor([-0.2]), torch.tensor([-0.5]), torch.tensor([1.0])).tolist() == pytest.approx([0.2])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_new_runs_file_shows_the_numbers_it_trains_with(name: ObjectiveName) -> None:
    begun = start(load_recipe("default"), settings_for_objective(name)).config
    written = tomllib.loads(dump_config(begun))["objective"][name]
    numbers = {key: value for key, value in default_settings(name).items() if isinstance(value, float)}
    assert {key: written[key] for key in numbers} == numbers
    assert build(name, **begun.objective.settings.model_dump()) == build(name, **written)


def test_a_number_that_nobody_set_is_shown_too() -> None:
    """The recipe leaves the clip range to the objective."""
    assert "clip_range = 0.1 " in dump_config(start(load_recipe("default"), {}).config)


def test_a_setting_that_is_given_wins_over_the_objectives_own() -> None:
    config = override(RunConfig(), {**settings_for_objective("kto"), "objective.kto.beta": "7"}, where="test")
    objective = build("kto", **config.objective.settings.model_dump())
    assert isinstance(objective, KTO)
    assert objective.beta == 7


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"feedback.source": "imported"}, r"have none; set it to one of .*diffusion_dpo"),
        ({"objective.name": "d3po_branch"}, r"set sampling\.branch = true"),
        ({"objective.name": "kto", "sampling.branch": "true"}, r"set sampling\.branch = false"),
        ({"sampling.branch": "true", "sampling.shared_start": "false"}, r"set sampling\.shared_start = true"),
        ({"sampling.judged": "expected"}, r"set it to 'finished', or sampling\.branch to true"),
        ({"objective.name": "kto", "adapter.method": "full"}, r"set adapter\.method = 'lora'"),
        ({"objective.name": "dpok", "adapter.method": "full"}, r"set adapter\.method = 'lora'"),
        ({"training.guided": "false", "adapter.method": "full"}, r"set training\.guided = true"),
    ],
)
def test_what_a_run_lacks_is_said_with_the_remedy(settings: dict[str, str], remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        check_needs(override(RunConfig(), settings, where="test"))


def test_all_are_listed_with_their_needs_and_defaults() -> None:
    output = CliRunner().invoke(app, ["objectives"]).output
    blocks = re.split(r"\n(?=\w)", output.strip())
    assert [block.split(":")[0] for block in blocks] == list(OBJECTIVES)
    for block, (name, entry) in zip(blocks, OBJECTIVES.items(), strict=True):
        assert entry.needs.labels in block
        assert entry.source in block
        assert all(f"{key} = {value:g}" in block for key, value in default_settings(name).items() if isinstance(value, float))


def test_an_unknown_objective_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'kto'"):
        settings_for_objective("kta")
