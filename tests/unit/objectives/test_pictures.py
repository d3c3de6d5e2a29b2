"""Objectives on pictures alone, against numbers worked out by hand, and the traps that their published codes fell into."""

import math

import pytest
import torch
from torch import Tensor

from d3po.objectives.base import ImageTerms
from d3po.objectives.diffusion_dpo import DiffusionDPO
from d3po.objectives.ipo import IPO
from d3po.objectives.kto import KTO
from d3po.objectives.mapo import MaPO
from d3po.objectives.reward_weighted import RewardWeighted
from d3po.objectives.sft import SFT
from tests.precision import assert_same

ONE_PROMPT = torch.zeros(3, dtype=torch.long)


def pair(*numbers: float) -> tuple[Tensor, ...]:
    """Log-ratios of a and b, and the target, of one pair at one step."""
    return tuple(torch.tensor([[number]], dtype=torch.float64, requires_grad=i < 2) for i, number in enumerate(numbers))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_diffusion_dpo_reads_half_beta_times_the_margin() -> None:
    a, b, target = pair(0.3e-3, -0.1e-3, 1.0)
    assert DiffusionDPO(beta=5000.0)(a, b, target).item() == pytest.approx(-math.log(sigmoid(2500 * 0.4e-3)))


def test_diffusion_dpo_of_a_policy_that_has_not_moved_is_log_two() -> None:
    a, b, target = pair(0.0, 0.0, 1.0)
    assert DiffusionDPO(beta=5000.0)(a, b, target).item() == pytest.approx(math.log(2))


def test_diffusion_dpo_wants_the_winner_denoised_better_and_the_loser_worse() -> None:
    a, b, target = pair(0.0, 0.0, 1.0)
    DiffusionDPO(beta=2.0)(a, b, target).sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    assert a.grad.item() == pytest.approx(-0.5)  # a larger log-ratio is a smaller error
    assert b.grad.item() == pytest.approx(0.5)


def test_diffusion_dpo_swapped_is_the_same_loss() -> None:
    a, b, target = pair(0.2, 0.5, 0.7)
    swapped = DiffusionDPO(beta=3.0)(b, a, 1 - target)
    assert DiffusionDPO(beta=3.0)(a, b, target).item() == pytest.approx(swapped.item())


def test_a_tie_pulls_both_pictures_together() -> None:
    a, b, target = pair(0.4, 0.0, 0.5)
    DiffusionDPO(beta=2.0)(a, b, target).sum().backward()
    assert a.grad is not None
    assert a.grad.item() > 0


def test_ipo_aims_at_one_over_two_beta() -> None:
    a, b, target = pair(0.05, 0.0, 1.0)
    assert IPO(beta=10.0)(a, b, target).item() == pytest.approx(0.0)
    a, b, target = pair(0.02, -0.01, 1.0)
    assert IPO(beta=10.0)(a, b, target).item() == pytest.approx((0.03 - 0.05) ** 2)


def test_beta_is_in_ipo() -> None:
    """Published trainers left it out, so that every beta gave the same loss."""
    a, b, target = pair(0.02, -0.01, 1.0)
    assert IPO(beta=10.0)(a, b, target).item() != IPO(beta=20.0)(a, b, target).item()


def test_ipo_pulls_a_margin_back_that_went_too_far() -> None:
    a, b, target = pair(1.0, 0.0, 1.0)
    IPO(beta=10.0)(a, b, target).sum().backward()
    assert a.grad is not None
    assert a.grad.item() > 0


def test_mapo_is_the_winners_error_and_a_preference_without_reference() -> None:
    objective = MaPO(beta=0.1, sharpness=10.0)
    a, b, target = pair(-0.2, -0.4, 1.0)  # errors .2 and .4
    certainty = [0.5 * e / (math.exp(0.5 * e) - 1) for e in (0.2, 0.4)]
    expected = 0.2 - 0.1 * math.log(sigmoid(10 * (certainty[0] - certainty[1])))
    assert objective(a, b, target).item() == pytest.approx(expected)


def test_mapo_has_the_right_sign() -> None:
    """An odds-ratio term with its sign flipped, as one published script has, would raise the winner's error."""
    objective = MaPO(beta=100.0, sharpness=10.0)
    a, b, target = pair(-0.3, -0.3, 1.0)
    objective(a, b, target).sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    assert a.grad.item() < 0 < b.grad.item()


def test_certainty_is_one_at_no_error_and_falls() -> None:
    certainty = MaPO(beta=1.0, sharpness=1.0).certainty(torch.tensor([0.0, 0.1, 1.0, 10.0]))
    assert certainty[0].item() == pytest.approx(1.0)
    assert (certainty.diff() < 0).all()


def test_kto_of_likes_and_dislikes_by_hand() -> None:
    terms = ImageTerms(log_ratio=torch.tensor([[0.2, 0.2]]), value=torch.tensor([1.0, -1.0]), batch_mean=0.05)
    gain = 2 * (0.2 - 0.05)
    losses = KTO(beta=2.0, dislike_weight=3.0)(terms)
    assert losses[0].tolist() == pytest.approx([1 - sigmoid(gain), 3 * (1 - sigmoid(-gain))])


def test_the_reference_point_of_kto_is_never_negative() -> None:
    value, ratio = torch.tensor([1.0]), torch.tensor([[0.2]])
    below = KTO(beta=2.0, dislike_weight=1.0)(ImageTerms(log_ratio=ratio, value=value, batch_mean=-5.0))
    at_zero = KTO(beta=2.0, dislike_weight=1.0)(ImageTerms(log_ratio=ratio, value=value, batch_mean=0.0))
    assert below.item() == at_zero.item()


def test_kto_still_learns_from_one_image_in_the_update() -> None:
    """Where the reference point is the image's own log-ratio, the loss is flat in value, but its gradient must not be."""
    ratio = torch.tensor([[0.3]], requires_grad=True)
    KTO(beta=2.0, dislike_weight=1.0)(ImageTerms(log_ratio=ratio, value=torch.tensor([1.0]), batch_mean=0.3)).sum().backward()
    assert ratio.grad is not None
    assert ratio.grad.item() == pytest.approx(-0.5)


def test_sft_is_the_error_of_liked_pictures_alone() -> None:
    values = SFT().values(torch.tensor([1.0, -1.0, 0.5]), ONE_PROMPT)
    losses = SFT()(ImageTerms(log_ratio=torch.tensor([[-0.4, -0.3, -0.2]]), value=values))
    assert losses[0].tolist() == pytest.approx([0.4, 0.0, 0.1])


def test_reward_weights_are_exponential_and_have_mean_one() -> None:
    scores = torch.tensor([1.0, 2.0, 3.0])
    weights = RewardWeighted(temperature=0.5).values(scores, ONE_PROMPT)
    spread = math.sqrt(2 / 3)
    by_hand = [math.exp((score - 2) / spread / 0.5) for score in (1, 2, 3)]
    assert weights.tolist() == pytest.approx([3 * w / sum(by_hand) for w in by_hand])


def test_reward_weights_do_not_depend_on_the_unit_of_the_reward() -> None:
    scores = torch.tensor([1.0, 2.0, 5.0])
    objective = RewardWeighted(temperature=0.5)
    assert_same(objective.values(scores, ONE_PROMPT), objective.values(1000 * scores - 7, ONE_PROMPT))


def test_equal_scores_weigh_the_same() -> None:
    assert RewardWeighted(temperature=0.1).values(torch.tensor([2.0, 2.0, 2.0]), ONE_PROMPT).tolist() == pytest.approx([1, 1, 1])
