"""Means and differences over seeds."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from d3po.evaluation.paired import paired, t_interval


def test_the_interval_of_three_seeds_by_hand() -> None:
    """1, 2, 3: mean 2, s = 1, t(0.975, 2) = 4.3027, so half the width is 4.3027 / sqrt(3)."""
    interval = t_interval([1.0, 2.0, 3.0])
    assert interval.value == 2
    assert interval.high - 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert 2 - interval.low == pytest.approx(interval.high - 2)


def test_one_seed_has_no_interval() -> None:
    interval = t_interval([0.7])
    assert interval.value == 0.7
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


@pytest.mark.parametrize("count", [2, 3, 12])
def test_seeds_that_all_gave_one_value_have_no_interval(count: int) -> None:
    interval = t_interval([0.1] * count)
    assert interval.value == pytest.approx(0.1)
    assert not interval.has_ends


def test_an_interval_is_cut_to_what_is_possible() -> None:
    """0.9 -+ 12.706 * 0.05."""
    interval = t_interval([0.85, 0.95], within=(0.0, 1.0))
    assert interval.low == pytest.approx(0.9 - 12.7062 * 0.05, abs=1e-5)
    assert interval.high == 1.0


def test_the_t_test_is_the_paired_one() -> None:
    ours, theirs = np.random.default_rng(1).normal(size=(2, 7))
    found = paired(ours.tolist(), theirs.tolist())
    assert found.t_p == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert found.difference.value == pytest.approx(float(np.mean(ours - theirs)))
    assert found.pairs == 7


@pytest.mark.parametrize("seed", range(3))
def test_the_sign_flip_p_is_the_share_of_sign_patterns_at_least_as_far_from_zero(seed: int) -> None:
    differences = np.random.default_rng(seed).normal(0.5, 1, size=6)
    means = [abs(np.dot(signs, differences)) for signs in product((-1, 1), repeat=6)]
    share = np.mean([mean >= abs(differences.sum()) - 1e-12 for mean in means])
    assert paired(differences.tolist(), [0.0] * 6).sign_flip_p == pytest.approx(share)


def test_four_seeds_that_all_improved_have_a_sign_flip_p_of_an_eighth() -> None:
    assert paired([2.0, 3.0, 4.0, 6.0], [1.0, 1.0, 1.0, 1.0]).sign_flip_p == pytest.approx(2 / 16)


def test_policies_that_are_the_same_do_not_differ() -> None:
    found = paired([0.5, 0.6, 0.7], [0.5, 0.6, 0.7])
    assert (found.difference.value, found.t_p, found.sign_flip_p) == (0, 1, 1)


def test_a_difference_without_any_spread_has_no_t_test() -> None:
    assert math.isnan(paired([1.0, 2.0], [0.0, 1.0]).t_p)


def test_one_pair_shows_nothing() -> None:
    found = paired([1.0], [0.0])
    assert math.isnan(found.t_p)
    assert found.sign_flip_p == 1
