"""What is measured of pairs, computed by hand."""

import math

import pytest
import torch
from torch import Tensor

from d3po.objectives.d3po import D3PO
from d3po.objectives.metrics import pair_metrics

OBJECTIVE = D3PO(beta=0.1, clip="two_sided", clip_range=0.1)


def measure(a: float, b: float, target: float, *, nats_per_dimension: float = 1.0) -> dict[str, float]:
    ratio_a, ratio_b, share = torch.tensor([a]), torch.tensor([b]), torch.tensor([target])
    losses = OBJECTIVE(ratio_a, ratio_b, share)
    return {name: float(value) for name, value in pair_metrics(OBJECTIVE, losses, ratio_a, ratio_b, share, nats_per_dimension).items()}


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


def test_kl_is_minus_the_mean_log_ratio_per_dimension() -> None:
    assert measure(-0.3, 0.1, 1.0)["kl"] == pytest.approx(0.1)
    assert measure(-30.0, 10.0, 1.0, nats_per_dimension=1 / 64)["kl"] == pytest.approx(10 / 64)


def test_kl_estimate_is_that_of_two_gaussians_when_the_reference_sampled() -> None:
    """KL(N(0, 1) || N(m, 1)) = m^2 / 2, and log p_m(x) - log p_0(x) = m x - m^2 / 2."""
    m, count = 0.5, 40_000
    x = torch.randn(2, count, generator=torch.Generator().manual_seed(0))
    ratios = m * x - m**2 / 2
    kl = pair_metrics(OBJECTIVE, torch.zeros(count), ratios[0], ratios[1], torch.ones(count), 1.0)["kl"]
    assert float(kl.mean()) == pytest.approx(m**2 / 2, abs=4 * m / math.sqrt(2 * count))


def test_metrics_carry_no_gradient_and_keep_the_shape_of_pairs() -> None:
    a = torch.zeros(3, 2, requires_grad=True)
    target = torch.ones(3, 2)
    metrics: dict[str, Tensor] = pair_metrics(OBJECTIVE, OBJECTIVE(a, -a, target), a, -a, target, 1.0)
    assert all(value.shape == (3, 2) and not value.requires_grad for value in metrics.values())
    torch.testing.assert_close(metrics["loss"], torch.full((3, 2), math.log(2)))


def test_kl_is_read_in_the_direction_of_whoever_sampled() -> None:
    """Images of the policy itself are likelier under it: their mean log-ratio is KL(policy || reference)."""
    generator = torch.Generator().manual_seed(0)
    mean, count = 0.3, 40_000
    of_reference, of_policy = torch.randn(2, count, generator=generator), torch.randn(2, count, generator=generator) + mean
    expected = mean**2 / 2  # KL between two unit Gaussians whose means are 0.3 apart, either way
    for images, by_reference in ((of_reference, True), (of_policy, False)):
        a, b = mean * images - mean**2 / 2
        losses, target = torch.zeros(count), torch.ones(count)
        kl = pair_metrics(OBJECTIVE, losses, a, b, target, 1.0, sampled_by_reference=by_reference)["kl"].mean()
        assert float(kl) == pytest.approx(expected, abs=5 * mean / (2 * count) ** 0.5)
