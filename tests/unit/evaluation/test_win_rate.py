"""Win rates on independent noise, and their intervals."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from d3po.evaluation.win_rate import Interval, mean_interval, win_rate, win_rates

quick = settings(max_examples=20, deadline=None)


def scores(prompts: int, images: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(prompts, images))


def test_win_rate_computed_by_hand() -> None:
    """Two noises leave two independent pairs a prompt: (tuned 0, base 1) and (tuned 1, base 0)."""
    tuned = np.array([[3.0, 0.0], [1.0, 1.0]])
    base = np.array([[9.0, 2.0], [1.0, 5.0]])
    # prompt 0: 3 > 2 wins, 0 < 9 loses: 1/2; prompt 1: 1 < 5 loses, 1 = 1 is half a win: 1/4
    assert win_rate(tuned, base).value == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_pairs_of_one_noise_are_not_counted() -> None:
    """An invisible shift wins every pair of one noise; on independent noise it wins half of them."""
    base = scores(40, 8, seed=0)
    shifted = win_rate(base + 1e-9, base)
    assert shifted.value == pytest.approx(0.5)
    assert shifted.low <= 0.5 <= shifted.high


@quick
@given(seed=st.integers(0, 1000), shift=st.floats(-2, 2))
def test_swapping_the_policies_mirrors_the_rate(seed: int, shift: float) -> None:
    tuned, base = scores(6, 3, seed) + shift, scores(6, 3, seed + 5000)
    assert win_rate(tuned, base).value == pytest.approx(1 - win_rate(base, tuned).value)


@quick
@given(seed=st.integers(0, 1000), shift=st.floats(-3, 3))
def test_interval_holds_its_value_and_lies_in_the_unit_range(seed: int, shift: float) -> None:
    interval = win_rate(scores(6, 3, seed) + shift, scores(6, 3, seed + 5000))
    assert 0 <= interval.low <= interval.value <= interval.high <= 1


def test_equal_pictures_win_half() -> None:
    same = np.zeros((5, 4))
    assert win_rate(same, same).value == 0.5


def test_known_advantage_is_measured() -> None:
    """Scores N(1, 1) against N(0, 1) win with probability Phi(1 / sqrt 2)."""
    chance = float(stats.norm.cdf(1 / np.sqrt(2)))
    interval = win_rate(scores(400, 6, seed=1) + 1, scores(400, 6, seed=2))
    assert interval.low < chance < interval.high
    assert interval.high - interval.low < 0.06


Rng = np.random.Generator
EXPERIMENTS = 300


PICTURES = 4


@dataclass(frozen=True)
class World:
    """Where the truth is known."""

    draw: Callable[[Rng, int], np.ndarray]
    """So many experiments of so many prompts: shares (experiments, prompts)."""
    truth: float
    comparisons: int
    """Of a prompt."""


def judged(shift: float, spread: float, lost: float = 0.0) -> World:
    """Scores N(shift, 1) against N(0, 1), the shift of each prompt N(shift, spread^2), of some prompts -shift."""

    def draw(rng: Rng, prompts: int) -> np.ndarray:
        shape, sign = (EXPERIMENTS * prompts, 1), np.where(rng.random((EXPERIMENTS * prompts, 1)) < lost, -1, 1)
        tuned = sign * shift + spread * rng.normal(size=shape) + rng.normal(size=(len(sign), PICTURES))
        return win_rates(tuned, rng.normal(size=tuned.shape)).reshape(EXPERIMENTS, prompts)

    won = float(stats.norm.cdf(shift / np.sqrt(2 + spread**2)))
    return World(draw, (1 - lost) * won + lost * (1 - won), PICTURES)


def blind(a: float, b: float, votes: int) -> World:
    """So many votes of each prompt, whose win rate is Beta(a, b)."""
    return World(lambda rng, prompts: rng.binomial(votes, rng.beta(a, b, size=(EXPERIMENTS, prompts))) / votes, a / (a + b), votes)


WORLDS = {
    "no change": judged(0.0, 0.0),
    "no change, prompts apart": judged(0.0, 2.0),
    "better": judged(1.0, 0.5),
    "better, prompts apart": judged(1.0, 2.0),
    "much better": judged(2.0, 1.0),
    "nearly always": judged(3.0, 0.0),
    "nearly always, prompts apart": judged(3.0, 1.0),
    "one prompt in ten lost": judged(2.0, 0.0, lost=0.1),
    "a vote a prompt": blind(6, 2, 1),
    "three votes a prompt": blind(9, 1, 3),
}


@pytest.mark.parametrize("prompts", [2, 4, 8, 16])
def test_the_truth_lies_within_as_often_as_is_said(prompts: int) -> None:
    """At least 0.92 in every world, of a nominal 0.95."""
    for number, (name, world) in enumerate(WORLDS.items()):
        rates = world.draw(np.random.default_rng([number, prompts]), prompts)
        found = [mean_interval(row, comparisons=world.comparisons * prompts) for row in rates]
        assert np.mean([each.low <= world.truth <= each.high for each in found]) >= 0.92, name


def test_a_bootstrap_over_prompts_would_not_pass() -> None:
    """What the test above is for: percentiles of resampled means hold the truth far too seldom."""
    world, rng = WORLDS["much better"], np.random.default_rng(0)
    low, high = np.percentile(world.draw(rng, 4) @ rng.multinomial(4, [0.25] * 4, size=500).T / 4, [2.5, 97.5], axis=1)
    assert np.mean((low <= world.truth) & (world.truth <= high)) < 0.85


def test_interval_of_four_prompts_by_hand() -> None:
    """Of four times 1 and once 1/2 the mean is 0.9; squares 4 * 0.01 + 0.16 + 1/12 = 0.28333; t(0.975, 4) = 2.776445."""
    interval = mean_interval(np.ones(4), comparisons=16)
    assert interval.value == interval.high == 1.0
    assert interval.low == pytest.approx(0.9 - 2.7764451 * math.sqrt((0.2 + 1 / 12) / 4 / 5), abs=1e-7)


@pytest.mark.parametrize("won", [0, 3, 8])
def test_single_votes_are_worth_no_more_than_a_count_of_them(won: int) -> None:
    """Eight of eight leave a lower end of 8 / (8 + z^2) = 0.68 by Wilson; t over eight prompts that all agree would say 0.79."""
    interval = mean_interval((np.arange(8) < won).astype(float), comparisons=8)
    wilson = stats.binomtest(won, 8).proportion_ci(method="wilson")
    assert interval.low <= wilson.low + 1e-12
    assert interval.high >= wilson.high - 1e-12
    assert won < 8 or interval.low == pytest.approx(8 / (8 + stats.norm.ppf(0.975) ** 2))


@quick
@given(rates=st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_interval_holds_the_mean_and_is_mirrored_with_it(rates: list[float]) -> None:
    interval, mirrored = (mean_interval(np.array(each), comparisons=4 * len(rates)) for each in (rates, [1 - rate for rate in rates]))
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    assert (interval.low, interval.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low), abs=1e-12)


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 1.0])
def test_one_prompt_says_nothing_of_others(rate: float) -> None:
    interval = mean_interval(np.array([rate]), comparisons=4)
    assert (interval.low, interval.high) == (0, 1)


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("count", [2, 5, 50])
def test_prompts_that_happen_to_agree_are_not_certainty(rate: float, count: int) -> None:
    interval = mean_interval(np.full(count, rate), comparisons=4 * count)
    assert interval.high - interval.low > 0.5 / count


def test_more_prompts_narrow_the_interval() -> None:
    widths = [(i := mean_interval(np.random.default_rng(0).uniform(size=n), comparisons=n)).high - i.low for n in (10, 100, 1000)]
    assert widths == sorted(widths, reverse=True)


def test_interval_is_written_for_people() -> None:
    assert str(Interval(value=0.612, low=0.5, high=0.7)) == "0.612 [0.500, 0.700]"
    assert str(Interval(value=0.5)) == "0.500", "known, not measured"


def test_by_several_criteria_only_dominance_wins() -> None:
    """Noise 0 against noise 1 and the other way, computed by hand: better by both; better by one and worse by the other; equal and better."""
    tuned = np.array([[[1, 1], [0, 0]], [[1, 0], [0, 1]], [[1, 1], [1, 2]]], dtype=float)
    base = np.array([[[0, 0], [0, 0]], [[1, 0], [0, 1]], [[1, 1], [1, 1]]], dtype=float)
    expected = [(1 + 0.5) / 2, (0.5 + 0.5) / 2, (0.5 + 1) / 2]
    assert win_rate(tuned, base).value == pytest.approx(np.mean(expected))
