"""The D3PO loss, its gradient and the comparing of rewards against numbers recorded from the published code (see golden.json)."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from d3po.annotation.simulated import SimulatedAnnotator
from d3po.objectives.d3po import D3PO

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "golden.json").read_text())["d3po_loss"]
NUMBERS = np.load(HERE / GOLDEN["file"])
CASES = [case["id"] for case in GOLDEN["cases"]]
TOLERANCE = {torch.float32: 16 * torch.finfo(torch.float32).eps, torch.float64: 1e-10}
"""Of numbers up to 1 that some ten operations make."""
NOISELESS = SimulatedAnnotator(temperature=0.0, tie_band=0.0, seed=0)


def number(case: str, field: str) -> Tensor:
    return torch.from_numpy(np.asarray(NUMBERS[f"{case}/{field}"]))


def target_of(human_prefer: Tensor) -> Tensor:
    """(+1, -1) is 1: a wins; (-1, +1) is 0; (0, 0) a tie, 0.5."""
    return (human_prefer[:, 0] + 1) / 2


def share_of_first(first: Sequence[float], second: Sequence[float]) -> float:
    """The noiseless annotator's verdict on images 0 and 1 with these rewards, as the share of preference that image 0 holds."""
    return {0: 1.0, 1: 0.0, None: 0.5}[NOISELESS.judge(0, 1, {0: first, 1: second}).winner]


def objective(case: str) -> D3PO:
    return D3PO(beta=float(number(case, "beta")), clip="two_sided", clip_range=float(number(case, "eps")), targets="signed")


def loss_and_gradient(case: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    policy = number(case, "policy_log_prob").to(dtype).requires_grad_()
    ratios = policy - number(case, "ref_log_prob").to(dtype)
    target = target_of(number(case, "human_prefer")).to(dtype)
    loss = objective(case)(ratios[:, 0], ratios[:, 1], target).mean()
    (gradient,) = torch.autograd.grad(loss, policy)
    return loss.detach(), gradient


@pytest.mark.parametrize(("suffix", "dtype"), [("", torch.float32), ("_f64", torch.float64)], ids=["fp32", "fp64"])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_are_the_recorded_ones(case: str, suffix: str, dtype: torch.dtype) -> None:
    loss, gradient = loss_and_gradient(case, dtype)
    assert abs(loss - number(case, f"loss{suffix}")) <= TOLERANCE[dtype]
    assert float((gradient - number(case, f"grad_policy{suffix}")).abs().max()) <= TOLERANCE[dtype]


@pytest.mark.parametrize("case", CASES)
def test_clipped_ratio_is_the_recorded_one(case: str) -> None:
    ratio = number(case, "policy_log_prob").double() - number(case, "ref_log_prob").double()
    clipped = objective(case).clipped(ratio, torch.ones_like(ratio)).exp()
    assert float((clipped - number(case, "clamped_ratio_f64")).abs().max()) <= TOLERANCE[torch.float64]


@pytest.mark.parametrize("case", CASES)
def test_noiseless_annotator_answers_as_the_reference_compares(case: str) -> None:
    rewards = number(case, "rewards")
    answers = [share_of_first([first], [second]) for first, second in rewards.tolist()]
    assert answers == target_of(number(case, "human_prefer")).tolist()


@pytest.mark.parametrize("row", range(len(NUMBERS["compare/a"])))
def test_of_several_rewards_the_annotator_prefers_what_the_reference_prefers(row: int) -> None:
    """Both ask for dominance."""
    a, b = NUMBERS["compare/a"][row].tolist(), NUMBERS["compare/b"][row].tolist()
    assert share_of_first(a, b) == float(target_of(torch.from_numpy(NUMBERS["compare/human_prefer"]))[row])
