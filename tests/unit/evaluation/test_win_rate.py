"""Win rates on independent noise, and their intervals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from d3po.evaluation.win_rate import Interval, mean_interval, win_rate

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


def test_interval_covers_the_truth_19_times_in_20() -> None:
    """Of 200 experiments of 40 prompts between 176 and 197 must cover, the 0.1 % and 99.9 % points for a true cover of 94 %."""
    covered = 0
    for seed in range(200):
        interval = mean_interval(np.random.default_rng(seed).beta(2, 3, size=40))
        covered += interval.low <= 0.4 <= interval.high
    low, high = stats.binom.ppf([0.001, 0.999], 200, 0.94)
    assert low <= covered <= high


def test_more_prompts_narrow_the_interval() -> None:
    widths = [(i := mean_interval(np.random.default_rng(0).uniform(size=n))).high - i.low for n in (10, 100, 1000)]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("count", [1, 5, 50])
def test_winning_everywhere_is_not_certainty(count: int) -> None:
    """Wilson (1927): n successes of n leave a lower end of n / (n + z^2), z = 1.96."""
    interval = mean_interval(np.ones(count))
    assert (interval.value, interval.high) == (1.0, 1.0)
    assert interval.low == pytest.approx(count / (count + stats.norm.ppf(0.975) ** 2))


def test_interval_is_the_same_whenever_it_is_computed() -> None:
    per_prompt = np.random.default_rng(0).uniform(size=20)
    first = mean_interval(per_prompt)
    np.random.default_rng(1).uniform(size=7)
    assert mean_interval(per_prompt) == first


def test_interval_is_written_for_people() -> None:
    assert str(Interval(value=0.612, low=0.5, high=0.7)) == "0.612 [0.500, 0.700]"


def test_by_several_criteria_only_dominance_wins() -> None:
    """Noise 0 against noise 1 and the other way, computed by hand: better by both; better by one and worse by the other; equal and better."""
    tuned = np.array([[[1, 1], [0, 0]], [[1, 0], [0, 1]], [[1, 1], [1, 2]]], dtype=float)
    base = np.array([[[0, 0], [0, 0]], [[1, 0], [0, 1]], [[1, 1], [1, 1]]], dtype=float)
    expected = [(1 + 0.5) / 2, (0.5 + 0.5) / 2, (0.5 + 1) / 2]
    assert win_rate(tuned, base).value == pytest.approx(np.mean(expected))
