"""DDPO and DPOK against numbers worked out by hand, and what equal scores come to."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from d3po.objectives.base import ImageTerms, centred
from d3po.objectives.ddpo import DDPO
from d3po.objectives.dpok import DPOK
from d3po.objectives.reward_weighted import RewardWeighted

PROMPTS = torch.tensor([0, 0, 1, 1])
SCORES = torch.tensor([1.0, 3.0, 10.0, 10.0])


def terms(log_ratio: float, value: float, kl: float | None = None) -> ImageTerms:
    return ImageTerms(
        log_ratio=torch.tensor([[log_ratio]], requires_grad=True),
        value=torch.tensor([value]),
        kl=None if kl is None else torch.tensor([[kl]], requires_grad=True),
    )


def gradient(loss: Tensor, of: Tensor) -> float:
    return torch.autograd.grad(loss.sum(), of)[0].item()


def test_advantages_are_taken_by_prompt() -> None:
    """An easy prompt's high scores are no achievement of its images."""
    assert DDPO(clip_range=1e-4).values(SCORES, PROMPTS).tolist() == pytest.approx([-1, 1, 0, 0])


@settings(max_examples=100, deadline=None)
@given(images=st.integers(2, 12), score=st.floats(-1e4, 1e4, width=32), other=st.floats(-1e4, 1e4, width=32))
def test_equal_scores_are_no_advantage(images: int, score: float, other: float) -> None:
    """In float32 the mean of equal numbers may differ from them by its rounding, which must not be divided by itself."""
    scores = torch.tensor([score] * images)
    one, two = torch.zeros(images, dtype=torch.long), torch.tensor([0] * images + [1])
    nothing = [0.0] * images
    assert DDPO(clip_range=0.1).values(scores, one).tolist() == nothing
    assert DDPO(clip_range=0.1).values(torch.cat([scores, torch.tensor([other])]), two).tolist() == [*nothing, 0.0]
    dpok = DPOK(alpha=1.0, beta=1.0, clip_range=0.1)
    assert dpok.values(scores, one).tolist() == nothing
    assert dpok.values(torch.cat([scores, torch.tensor([other])]), two).tolist() == [*nothing, 0.0]
    assert centred(scores).tolist() == nothing, "nobody stands above the mean"
    torch.testing.assert_close(RewardWeighted(temperature=0.5).values(scores, one), torch.ones(images))


def test_scores_that_differ_by_less_than_the_published_epsilon_are_hardly_an_advantage() -> None:
    """Of -d and d the standard deviation is d, and d / (d + 1e-6) is a half at d = 1e-6."""
    scores = torch.tensor([-1e-6, 1e-6], dtype=torch.float64)
    assert DDPO(clip_range=0.1).values(scores, torch.zeros(2, dtype=torch.long)).tolist() == pytest.approx([-0.5, 0.5], rel=1e-12)


def test_advantages_are_bounded() -> None:
    scores = torch.cat([torch.zeros(99), torch.tensor([1000.0])])
    assert DDPO(clip_range=1e-4).values(scores, torch.zeros(100, dtype=torch.long)).max().item() == 5.0


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "expected"),
    [(0.0, 1.0, -1.0), (0.0, -2.0, 2.0), (0.3, 1.0, -1.1), (-0.3, 1.0, -0.740818), (0.3, -1.0, 1.349859), (-0.3, -1.0, 0.9)],
)
def test_ddpo_is_the_pessimistic_clipped_ratio(log_ratio: float, advantage: float, expected: float) -> None:
    assert DDPO(clip_range=0.1)(terms(log_ratio, advantage)).item() == pytest.approx(expected, rel=1e-5)


def test_the_first_gradient_of_ddpo_is_that_of_the_log_prob() -> None:
    given = terms(0.0, 1.5)
    assert gradient(DDPO(clip_range=1e-4)(given), given.log_ratio) == pytest.approx(-1.5)


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "clipped"), [(0.2, 1.0, True), (0.2, -1.0, False), (-0.2, -1.0, True), (0.2, 0.0, False)]
)
def test_what_is_clipped_has_no_gradient_and_is_said_to_be(log_ratio: float, advantage: float, clipped: bool) -> None:
    for objective, step in (
        (DDPO(clip_range=0.1), terms(log_ratio, advantage)),
        (DPOK(alpha=1.0, beta=1.0, clip_range=0.1), terms(log_ratio, advantage, 0.0)),
    ):
        assert bool(objective.is_clipped(step)) == clipped
        still = gradient(objective(step), step.log_ratio) == 0
        assert still == (clipped or advantage == 0)


def test_the_baseline_of_dpok_is_the_prompts_own_mean() -> None:
    spread = SCORES.std(correction=0).item()
    assert DPOK(alpha=1.0, beta=1.0, clip_range=0.1).values(SCORES, PROMPTS).tolist() == pytest.approx([-1 / spread, 1 / spread, 0, 0])


def test_dpok_adds_reward_and_kl() -> None:
    assert DPOK(alpha=10.0, beta=0.5, clip_range=0.1)(terms(0.05, 2.0, 0.3)).item() == pytest.approx(0.5 * 0.3 - 10 * 2 * 1.0512711)


def test_the_kl_of_dpok_pulls_even_where_the_reward_says_nothing() -> None:
    """A published script's KL is 0 at batch 1, so that nothing holds the policy back."""
    given = terms(0.0, 0.0, 0.3)
    assert given.kl is not None
    assert gradient(DPOK(alpha=10.0, beta=0.5, clip_range=0.1)(given), given.kl) == pytest.approx(0.5)
