"""Means over seeds, and differences between two policies that were trained with the same seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from d3po.evaluation.win_rate import Interval

SIGNINGS = 2**16
"""Sign patterns tried at most: all of them up to 16 seeds, which makes the p value exact, and so many drawn ones beyond."""


@dataclass(frozen=True, kw_only=True)
class Paired:
    """A difference of means over n pairs."""

    difference: Interval
    """Of the means, with Student's interval; its ends are nan with one pair."""
    t_p: float
    """Of the two-sided paired t test; nan with one pair, or where all differences are the same and not 0."""
    sign_flip_p: float
    """Of the two-sided sign-flip permutation test, which assumes no distribution; never below 2 / 2^n."""
    pairs: int


def t_interval(values: Sequence[float]) -> Interval:
    """The mean with Student's 95 % interval: mean -+ t(0.975, n - 1) s / sqrt(n), its ends nan where n is 1."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return Interval(value=mean, low=float("nan"), high=float("nan"))
    half = float(stats.t.ppf(0.975, n - 1) * stats.sem(values))
    return Interval(value=mean, low=mean - half, high=mean + half)


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Paired:
    """Ours minus theirs; the i-th of both are of one seed."""
    differences = np.subtract(ours, theirs)
    return Paired(
        difference=t_interval(differences.tolist()), t_p=_t_p(differences), sign_flip_p=_sign_flip_p(differences), pairs=len(differences)
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
