"""The D3PO loss: values computed by hand, and what must hold for all of them."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from d3po.objectives.d3po import D3PO

CLIPS, TARGETS = ["none", "two_sided", "one_sided"], ["signed", "cross_entropy"]
every_setting = pytest.mark.parametrize(("clip", "targets"), list(product(CLIPS, TARGETS)))
log_ratios = st.floats(-3, 3)
shares = st.floats(0, 1)
quick = settings(max_examples=50, deadline=None)


def d3po(*, beta: float = 2.0, clip: Any = "none", clip_range: float = 0.1, targets: Any = "signed") -> D3PO:
    return D3PO(beta=beta, clip=clip, clip_range=clip_range, targets=targets)


def loss_and_gradients(objective: D3PO, a: float, b: float, target: float) -> tuple[float, float, float]:
    """In double precision: the loss, and its slope in each log-ratio."""
    ratios = torch.tensor([a, b], dtype=torch.float64, requires_grad=True)
    loss = objective(ratios[0], ratios[1], torch.tensor(target, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(loss, ratios)
    return (loss.item(), *gradient.tolist())


def test_unclipped_loss_computed_by_hand() -> None:
    """-log sigmoid(2 (log 1.05 - log 0.95)) = log(1 + (0.95 / 1.05)^2); the slope is -2 sigmoid(-margin)."""
    loss, slope_a, slope_b = loss_and_gradients(d3po(), math.log(1.05), math.log(0.95), 1.0)
    odds = (0.95 / 1.05) ** 2
    assert loss == pytest.approx(math.log(1 + odds))
    assert slope_a == pytest.approx(-2 * odds / (1 + odds))
    assert slope_b == pytest.approx(2 * odds / (1 + odds))


@pytest.mark.parametrize(
    ("ratio_a", "ratio_b", "seen_a", "seen_b"),
    [(1.05, 0.97, 1.05, 0.97), (2.0, 0.97, 1.1, 0.97), (1.05, 0.2, 1.05, 0.9), (0.3, 7.0, 0.9, 1.1)],
)
def test_two_sided_clip_computed_by_hand(ratio_a: float, ratio_b: float, seen_a: float, seen_b: float) -> None:
    loss, _, _ = loss_and_gradients(d3po(beta=1.0, clip="two_sided"), math.log(ratio_a), math.log(ratio_b), 1.0)
    assert loss == pytest.approx(math.log(1 + seen_b / seen_a))


def test_cross_entropy_computed_by_hand() -> None:
    """Three of four judges prefer a: -3/4 log sigmoid(m) - 1/4 log sigmoid(-m), with exp(m) = 1.2 / 0.8."""
    loss, _, _ = loss_and_gradients(d3po(beta=1.0, targets="cross_entropy"), math.log(1.2), math.log(0.8), 0.75)
    assert loss == pytest.approx(-0.75 * math.log(0.6) - 0.25 * math.log(0.4))


def test_signed_soft_target_computed_by_hand() -> None:
    """Three of four judges prefer a: the margin counts 2 * 3/4 - 1 = half."""
    loss, _, _ = loss_and_gradients(d3po(beta=1.0), math.log(1.2), math.log(0.8), 0.75)
    assert loss == pytest.approx(math.log(1 + (0.8 / 1.2) ** 0.5))


@every_setting
@quick
@given(target=shares)
def test_untrained_policy_scores_log_two(clip: str, targets: str, target: float) -> None:
    loss, _, _ = loss_and_gradients(d3po(clip=clip, targets=targets), 0.0, 0.0, target)
    assert loss == pytest.approx(math.log(2))


@every_setting
@quick
@given(a=log_ratios, b=log_ratios, target=shares)
def test_swapping_the_images_and_the_target_changes_nothing(clip: str, targets: str, a: float, b: float, target: float) -> None:
    objective = d3po(clip=clip, targets=targets)
    loss, slope_a, slope_b = loss_and_gradients(objective, a, b, target)
    swapped_loss, swapped_b, swapped_a = loss_and_gradients(objective, b, a, 1 - target)
    assert swapped_loss == pytest.approx(loss, abs=1e-12)
    assert (swapped_a, swapped_b) == pytest.approx((slope_a, slope_b), abs=1e-12)


@pytest.mark.parametrize("clip", CLIPS)
@quick
@given(a=log_ratios, b=log_ratios)
def test_signed_tie_teaches_nothing(clip: str, a: float, b: float) -> None:
    loss, slope_a, slope_b = loss_and_gradients(d3po(clip=clip), a, b, 0.5)
    assert loss == pytest.approx(math.log(2))
    assert slope_a == slope_b == 0


def test_cross_entropy_tie_pulls_the_images_together() -> None:
    _, slope_a, slope_b = loss_and_gradients(d3po(targets="cross_entropy"), 0.3, -0.2, 0.5)
    assert slope_a > 0 > slope_b


@pytest.mark.parametrize("clip", CLIPS)
@quick
@given(a=log_ratios, b=log_ratios, target=st.sampled_from([0.0, 1.0]))
def test_certain_targets_read_the_same_either_way(clip: str, a: float, b: float, target: float) -> None:
    signed = loss_and_gradients(d3po(clip=clip), a, b, target)
    assert loss_and_gradients(d3po(clip=clip, targets="cross_entropy"), a, b, target) == pytest.approx(signed, abs=1e-12)


@quick
@given(target=st.floats(0.05, 0.95), beta=st.floats(0.1, 5), step=st.floats(0.01, 1))
def test_cross_entropy_is_least_where_the_sigmoid_of_the_margin_is_the_target(target: float, beta: float, step: float) -> None:
    objective = d3po(beta=beta, targets="cross_entropy")
    best = math.log(target / (1 - target)) / beta
    least, slope_a, slope_b = loss_and_gradients(objective, best, 0.0, target)
    assert (slope_a, slope_b) == pytest.approx((0, 0), abs=1e-9)
    assert loss_and_gradients(objective, best + step, 0.0, target)[0] > least
    assert loss_and_gradients(objective, best - step, 0.0, target)[0] > least


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("target", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("margin", [1e4, -1e4])
def test_loss_and_gradient_are_finite_at_huge_margins(targets: str, target: float, margin: float) -> None:
    a = torch.tensor([margin], requires_grad=True)
    loss = d3po(targets=targets)(a, -a.detach(), torch.tensor([target]))
    loss.sum().backward()
    assert a.grad is not None
    assert loss.isfinite().all()
    assert a.grad.isfinite().all()


def test_loss_of_a_hopeless_pair_grows_with_its_margin() -> None:
    """Where sigmoid underflows, -log sigmoid(-x) is x."""
    loss, slope_a, _ = loss_and_gradients(d3po(), -1e4, 1e4, 1.0)
    assert loss == pytest.approx(4e4)
    assert slope_a == pytest.approx(-2)


WRONG, RIGHT = math.log(0.5), math.log(2.0)


@pytest.mark.parametrize(("clip", "mended"), [("none", True), ("one_sided", True), ("two_sided", False)])
def test_winner_that_became_unlikely_is_mended_unless_the_clip_is_two_sided(clip: str, mended: bool) -> None:
    _, winner, _ = loss_and_gradients(d3po(clip=clip), WRONG, 0.0, 1.0)
    _, _, loser = loss_and_gradients(d3po(clip=clip), 0.0, RIGHT, 1.0)
    assert (winner < 0) == (loser > 0) == mended
    assert mended or winner == loser == 0


@pytest.mark.parametrize(("clip", "held"), [("none", False), ("one_sided", True), ("two_sided", True)])
def test_winner_that_is_likely_enough_is_held_by_either_clip(clip: str, held: bool) -> None:
    _, winner, _ = loss_and_gradients(d3po(clip=clip), RIGHT, 0.0, 1.0)
    _, _, loser = loss_and_gradients(d3po(clip=clip), 0.0, WRONG, 1.0)
    assert (winner == 0) == (loser == 0) == held


@quick
@given(a=log_ratios, b=log_ratios, target=shares)
def test_published_settings_confine_the_loss(a: float, b: float, target: float) -> None:
    """beta 0.1 and eps 0.1 allow a logit of at most 0.1 log(1.1 / 0.9) = 0.0201, and so a loss in [0.683, 0.703]."""
    loss, _, _ = loss_and_gradients(d3po(beta=0.1, clip="two_sided"), a, b, target)
    assert 0.683 < loss < 0.7033


@pytest.mark.parametrize("clip", CLIPS)
@quick
@given(a=log_ratios, b=log_ratios, target=st.sampled_from([0.0, 0.2, 0.8, 1.0]))
def test_clipped_is_where_the_gradient_is_cut_off(clip: str, a: float, b: float, target: float) -> None:
    objective = d3po(clip=clip)
    _, slope_a, slope_b = loss_and_gradients(objective, a, b, target)
    share = objective.clipped_share(*torch.tensor([a, b, target], dtype=torch.float64))
    assert float(share) == ((slope_a == 0) + (slope_b == 0)) / 2


@every_setting
def test_each_pair_has_a_loss_of_its_own(clip: str, targets: str) -> None:
    objective = d3po(clip=clip, targets=targets)
    a, b, target = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)).unbind()
    target = target.sigmoid()
    losses: Tensor = objective(a, b, target)
    assert losses.shape == (5, 4)
    torch.testing.assert_close(losses[2, 3], objective(a[2, 3], b[2, 3], target[2, 3]))
