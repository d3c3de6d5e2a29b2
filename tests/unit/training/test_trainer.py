"""The trainer on a model whose every number can be worked out by hand."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from d3po.config import RunConfig, override
from d3po.objective_settings import ObjectiveName
from d3po.objectives.base import ImageTerms
from d3po.objectives.policy_gradient import clipped_gain
from d3po.training.trainer import Trainer, step_weights
from tests.precision import BOUND
from tests.unit.training.linear import group, policy, replay

VALUES = [1.0, -1.5]


@pytest.mark.parametrize("weighting", ["uniform", "balanced"])
@pytest.mark.parametrize(("name", "beta"), [("ddpo", 0.0), ("dpok", 0.5)])
def test_a_policy_gradient_has_the_true_ratio_and_weighs_the_whole_loss_of_a_step(
    tmp_path: Path, weighting: str, name: ObjectiveName, beta: float
) -> None:
    settings = {"objective.name": name, "objective.step_weighting": weighting, f"objective.{name}.clip_range": "0.2"}
    settings |= {"objective.dpok.beta": str(beta)} if name == "dpok" else {}
    made = policy(moved=0.2)
    how, mine, steps = replay(made), group(tmp_path, values=VALUES), torch.tensor([1, 2])
    trainer = Trainer(made, how, override(RunConfig(), settings, where="test"))
    condition = made.encode_prompts(["a"])
    evidence = trainer.likelihood.read([mine], condition, steps, (0, 0, 0))
    gain = clipped_gain(ImageTerms(log_ratio=evidence.log_ratio, value=torch.tensor(VALUES)), 0.2)
    kl = torch.zeros_like(gain) if evidence.kl is None else evidence.kl
    weights = step_weights(how, balanced=weighting == "balanced")[steps]
    assert (weights[0] != weights[1]) == (weighting == "balanced")
    expected = (weights[:, None] * (beta * kl - gain)).mean()
    metrics = trainer.update([mine], condition, steps)
    assert metrics["loss"] == pytest.approx(expected.item(), rel=BOUND)
    assert metrics.get("kl_to_pretrained", 0.0) == pytest.approx(kl.mean().item(), rel=BOUND)


@pytest.mark.parametrize(("name", "measured"), [("sft", [False, True]), ("kto", [True, True])])
def test_a_policy_without_a_reference_is_held_against_the_pretrained_model_once_a_round(
    tmp_path: Path, name: ObjectiveName, measured: list[bool]
) -> None:
    made = policy(moved=0.5)
    settings = {"objective.name": name, "training.learning_rate": "1e-9", "training.epochs": "2", "training.target_kl": "1e-6"}
    trainer = Trainer(made, replay(made), override(RunConfig(), settings, where="test"))
    lines: list[dict[str, float]] = []
    for _ in range(2):  # rounds
        groups = [group(tmp_path, values=VALUES)]
        trainer.run(groups, made.encode_prompts(["a"]), trainer.plan(1, 0), after_update=lambda _, metrics: lines.append(metrics))
    assert [line.get("kl", 0.0) > 0 for line in lines] == 2 * measured
    assert ["kl" in line for line in lines] == 2 * measured
    assert (lines[1]["learning_rate"] == 1e-9) == (name == "sft"), "a brake that sees one update in many would only jolt"


def test_the_winners_safeguard_reaches_the_gradient(tmp_path: Path) -> None:
    gradients: list[float] = []
    for mu in ("0", "1"):
        made = policy(moved=0.5)
        settings = {"objective.name": "diffusion_dpo", "objective.diffusion_dpo.winner_safeguard": mu, "training.max_grad_norm": "1e9"}
        trainer = Trainer(made, replay(made), override(RunConfig(), settings, where="test"))
        pairs = replace(group(tmp_path), pairs=torch.tensor([[0, 1]]), targets=torch.ones(1), weights=torch.ones(1))
        gradients.append(trainer.update([pairs], made.encode_prompts(["a"]), torch.arange(100, 900, 100))["gradient_norm"])
    assert gradients[0] > 0
    assert abs(gradients[0] - gradients[1]) > 0.01 * gradients[0]


def test_a_state_with_the_running_kl_under_its_former_name_is_read() -> None:
    made = policy(moved=0.2)
    trainer = Trainer(made, replay(made), override(RunConfig(), {"training.policy_ema": "0.0"}, where="test"))
    tensors = trainer.state()
    tensors["brake.kl"] = tensors.pop("kl_controller.kl") + 0.25
    trainer.load_state(tensors)
    assert trainer.state()["kl_controller.kl"] == 0.25
