"""What is measured of pairs, computed by hand."""

import math

import pytest
import torch
from torch import Tensor

from d3po.objectives.d3po import D3PO
from d3po.objectives.metrics import gaussian_kl, pair_metrics
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


def test_square_log_ratio_is_the_mean_of_both_images() -> None:
    assert measure(-0.3, 0.1, 1.0)["square_log_ratio"] == pytest.approx((0.09 + 0.01) / 2)


@pytest.mark.parametrize("mean", [0.1, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("sampler", ["reference", "policy"])
def test_kl_is_that_of_two_gaussians_whichever_sampled(mean: float, sampler: str) -> None:
    """KL(N(0, 1) || N(m, 1)) = m^2 / 2 either way, and log p_m(x) - log p_0(x) = m x - m^2 / 2."""
    count = 200_000
    x = torch.randn(count, generator=torch.Generator().manual_seed(0)) + (mean if sampler == "policy" else 0.0)
    log_ratios = mean * x - mean**2 / 2
    assert gaussian_kl(float(log_ratios.square().mean())) == pytest.approx(mean**2 / 2, rel=0.02)


def test_metrics_carry_no_gradient_and_keep_the_shape_of_pairs() -> None:
    a = torch.zeros(3, 2, requires_grad=True)
    target = torch.ones(3, 2)
    metrics: dict[str, Tensor] = pair_metrics(OBJECTIVE, OBJECTIVE(a, -a, target), a, -a, target)
    assert all(value.shape == (3, 2) and not value.requires_grad for value in metrics.values())
    assert_same(metrics["loss"], torch.full((3, 2), math.log(2)))
