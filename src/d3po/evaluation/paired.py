"""Means over seeds, and differences between two policies that were trained with the same seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from d3po.evaluation.win_rate import Interval

SIGNINGS = 2**16
"""The most sign patterns that are tried. Up to 16 seeds these are all patterns, so the p value is exact; beyond that they are drawn at random."""


Bounds = tuple[float, float]
"""The smallest and the largest possible value of a figure."""

ANYWHERE: Bounds = (-math.inf, math.inf)
SHARE: Bounds = (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Paired:
    """A difference of means over n pairs."""

    difference: Interval
    """The mean difference with Student's 95 % interval; see `t_interval`."""
    t_p: float
    """The p value of the two-sided paired t test; nan with one pair, or if all differences are the same and not 0."""
    sign_flip_p: float
    """The p value of the two-sided sign-flip permutation test, which assumes no distribution. It is never below 2 / 2^n."""
    pairs: int
    """n, the number of pairs."""


def t_interval(values: Sequence[float], *, within: Bounds = ANYWHERE) -> Interval:
    """The mean with Student's 95 % interval, mean -+ t(0.975, n - 1) s / sqrt(n), cut to `within`.

    The interval has no ends (nan) for a single value and for values that are all the same, because these do not show the spread.
    """
    mean, n = float(np.mean(values)), len(values)
    if n < 2 or np.ptp(values) == 0:
        return Interval(value=mean)
    half = float(stats.t.ppf(0.975, n - 1) * stats.sem(values))
    low, high = within
    return Interval(value=mean, low=max(low, mean - half), high=min(high, mean + half))


def paired(ours: Sequence[float], theirs: Sequence[float], *, within: Bounds = ANYWHERE) -> Paired:
    """Test the differences `ours` minus `theirs`. The i-th values of both come from the same seed, and all lie within the bounds `within`."""
    differences, span = np.subtract(ours, theirs), within[1] - within[0]
    return Paired(
        difference=t_interval(differences.tolist(), within=(-span, span)),
        t_p=_t_p(differences),
        sign_flip_p=_sign_flip_p(differences),
        pairs=len(differences),
    )


def _t_p(differences: np.ndarray) -> float:
    if len(differences) < 2 or np.ptp(differences) == 0:
        return 1.0 if len(differences) > 1 and differences[0] == 0 else float("nan")
    return float(np.asarray(stats.ttest_1samp(differences, 0.0))[1])


def _sign_flip_p(differences: np.ndarray) -> float:
    """The p value under the hypothesis that both policies are alike, so that each difference could as well have the other sign."""
    if len(differences) < 2:
        return 1.0
    test = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=SIGNINGS, alternative="two-sided", rng=np.random.default_rng(0)
    )
    return float(test.pvalue)
