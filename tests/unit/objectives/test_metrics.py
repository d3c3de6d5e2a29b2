"""What is measured of pairs, computed by hand."""

import math

import pytest
import torch
from torch import Tensor

from d3po.objectives.d3po import D3PO
from d3po.objectives.metrics import pair_metrics
from tests.precision import assert_same

OBJECTIVE = D3PO(beta=0.1, clip="two_sided", clip_range=0.1)


def measure(a: float, b: float, target: float) -> dict[str, float]:
    ratio_a, ratio_b, share = torch.tensor([a]), torch.tensor([b]), torch.tensor([target])
    losses = OBJECTIVE(ratio_a, ratio_b, share)
    return {name: float(value) for name, value in pair_metrics(OBJECTIVE, losses, ratio_a, ratio_b, share).items()}


@pytest.mark.parametrize(("a", "b", "target"), [(0.05, -0.02, 1.0), (-0.02, 0.05, 0.0)])
def test_margin_is_winner_minus_loser_whichever_comes_first(a: float, b: float, target: float) -> None:
    metrics = measure(a, b, target)
    assert metrics["winner_log_ratio"] == pytest.approx(0.05)
    assert metrics["loser_log_ratio"] == pytest.approx(-0.02)
    assert metrics["margin"] == pytest.approx(0.07)
    assert metrics["accuracy"] == 1


@pytest.mark.parametrize(("a", "b", "accuracy"), [(0.1, 0.0, 1.0), (0.0, 0.1, 0.0), (0.1, 0.1, 0.5), (0.0, 0.0, 0.5)])
def test_accuracy_counts_an_equal_pair_half(a: float, b: float, accuracy: float) -> None:
    assert measure(a, b, 1.0)["accuracy"] == accuracy


@pytest.mark.parametrize(
    ("a", "b", "fraction"), [(0.05, 0.05, 0.0), (0.5, 0.05, 0.5), (0.05, -0.5, 0.5), (0.5, -0.5, 1.0), (-0.5, 0.5, 1.0)]
)
def test_clip_fraction_counts_each_image_of_the_pair(a: float, b: float, fraction: float) -> None:
    assert measure(a, b, 1.0)["clip_fraction"] == fraction


def test_metrics_carry_no_gradient_and_keep_the_shape_of_pairs() -> None:
    a = torch.zeros(3, 2, requires_grad=True)
    target = torch.ones(3, 2)
    metrics: dict[str, Tensor] = pair_metrics(OBJECTIVE, OBJECTIVE(a, -a, target), a, -a, target)
    assert all(value.shape == (3, 2) and not value.requires_grad for value in metrics.values())
    assert_same(metrics["loss"], torch.full((3, 2), math.log(2)))
