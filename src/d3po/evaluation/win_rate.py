"""Win rate on independent noise, with a 95 % interval over prompts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 4000


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def win_rate(tuned: NDArray[np.float64], base: NDArray[np.float64]) -> Interval:
    """The chance that a tuned image beats a base image of the same prompt drawn from other noise; a tie counts half.

    With several criteria, an image beats another that is worse by one of them and better by none.

    Args:
        tuned: scores, shape (P prompts, n images) or (P, n, C criteria); column i was drawn from noise i.
        base: likewise, from the same noises. Columns i and i are paired by noise and left out: an invisible shift would win
            every such pair, so they are for looking at, never for counting.
    """
    n = tuned.shape[1]
    difference = np.atleast_3d(tuned)[:, :, None] - np.atleast_3d(base)[:, None, :]
    better, worse = (difference > 0).any(axis=-1), (difference < 0).any(axis=-1)
    wins = np.where(better == worse, 0.5, np.where(better, 1.0, 0.0))
    independent = ~np.eye(n, dtype=bool)
    return mean_interval(wins[:, independent].mean(axis=1))


def mean_interval(per_prompt: NDArray[np.float64]) -> Interval:
    """Mean over prompts of a share in [0, 1] with a percentile bootstrap interval.

    Where every prompt has the same value the bootstrap has nothing to resample; Wilson's interval for that many prompts is
    given instead, which is wider.
    """
    value = float(per_prompt.mean())
    if np.ptp(per_prompt) == 0:
        count = len(per_prompt)
        ci = stats.binomtest(round(value * count), count).proportion_ci(method="wilson")
    else:
        ci = stats.bootstrap(
            (per_prompt,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0)
        ).confidence_interval
    return Interval(value=value, low=float(min(ci.low, value)), high=float(max(ci.high, value)))
