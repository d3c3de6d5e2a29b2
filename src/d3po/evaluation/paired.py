"""Means over seeds, and differences between two policies that were trained with the same seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from d3po.evaluation.win_rate import Interval

SIGNINGS = 2**16
"""Sign patterns tried at most: all of them up to 16 seeds, which makes the p value exact, and so many drawn ones beyond."""


Bounds = tuple[float, float]
"""Between which a figure lies whatever happens."""

ANYWHERE: Bounds = (-math.inf, math.inf)
SHARE: Bounds = (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Paired:
    """A difference of means over n pairs."""

    difference: Interval
    """Of the means, with Student's interval, as of `t_interval`."""
    t_p: float
    """Of the two-sided paired t test; nan with one pair, or where all differences are the same and not 0."""
    sign_flip_p: float
    """Of the two-sided sign-flip permutation test, which assumes no distribution; never below 2 / 2^n."""
    pairs: int


def t_interval(values: Sequence[float], *, within: Bounds = ANYWHERE) -> Interval:
    """The mean with Student's 95 % interval, mean -+ t(0.975, n - 1) s / sqrt(n), cut to `within`.

    It has no ends where nothing tells the spread: of one value, or of values that are all the same.
    """
    mean, n = float(np.mean(values)), len(values)
    if n < 2 or np.ptp(values) == 0:
        return Interval(value=mean)
    half = float(stats.t.ppf(0.975, n - 1) * stats.sem(values))
    low, high = within
    return Interval(value=mean, low=max(low, mean - half), high=min(high, mean + half))


def paired(ours: Sequence[float], theirs: Sequence[float], *, within: Bounds = ANYWHERE) -> Paired:
    """Ours minus theirs; the i-th of both are of one seed, and both lie within the bounds."""
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
    """If both policies were alike, every difference could as well have had the other sign."""
    if len(differences) < 2:
        return 1.0
    test = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=SIGNINGS, alternative="two-sided", rng=np.random.default_rng(0)
    )
    return float(test.pvalue)
