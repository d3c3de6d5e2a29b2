"""Every objective can be built as a run.toml builds it, and says what it needs."""

import re

import pytest
import torch
from typer.testing import CliRunner

from d3po.cli.app import app
from d3po.config import RunConfig, override
from d3po.errors import ConfigError
from d3po.objectives.base import ImageObjective, ImageTerms, PairObjective
from d3po.objectives.registry import OBJECTIVES, build
from d3po.options import ObjectiveName
from d3po.run.needs import check_needs
from d3po.run.starting import own_settings


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_is_built_from_a_run_that_names_it(name: ObjectiveName) -> None:
    config = override(RunConfig(), own_settings(name), where="test")
    objective = build(name, config.objective.model_dump())
    for key, value in OBJECTIVES[name].own.items():
        assert getattr(objective, key) == value
    check_needs(config)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_its_labels_say_which_interface_it_has(name: ObjectiveName) -> None:
    objective, needs = build(name, RunConfig().objective.model_dump()), OBJECTIVES[name].needs
    assert isinstance(objective, PairObjective if needs.labels == "pairs" else ImageObjective)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_better_images_become_likelier(name: ObjectiveName) -> None:
    """The first gradient of every objective raises the better image, and of those that know the worse one, lowers it."""
    objective = build(name, RunConfig().objective.model_dump())
    ratio = torch.full((1, 2), -0.3 if OBJECTIVES[name].needs.reference == "none" else 0.0, requires_grad=True)
    if isinstance(objective, PairObjective):
        losses = objective(ratio[:, :1], ratio[:, 1:], torch.ones(1, 1))
    else:
        values = objective.values(torch.tensor([1.0, -1.0]), torch.zeros(2, dtype=torch.long))
        losses = objective(ImageTerms(log_ratio=ratio, value=values, kl=torch.zeros(1, 2)))
    losses.sum().backward()
    assert ratio.grad is not None
    better, worse = ratio.grad[0].tolist()
    assert better < 0
    assert worse > better


def test_a_setting_that_is_given_wins_over_the_objectives_own() -> None:
    config = override(RunConfig(), {**own_settings("kto"), "objective.beta": "7"}, where="test")
    assert build("kto", config.objective.model_dump()).beta == 7  # pyright: ignore[reportAttributeAccessIssue]


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
    for block, entry in zip(blocks, OBJECTIVES.values(), strict=True):
        assert entry.needs.labels in block
        assert entry.source in block
        assert all(f"{key} = {value:g}" in block for key, value in entry.own.items())


def test_an_unknown_objective_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'kto'"):
        own_settings("kta")
