"""Win rate on independent noise, with a 95 % interval over prompts."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

NO_CHANGE = 0.5
"""The win rate of a policy that is as good as the base model, and so of the base model itself."""
UNKNOWN_VARIANCE = 1 / 12
"""The variance of an unknown share, which is taken to be uniform on [0, 1]."""
Z = float(stats.norm.ppf(0.975))


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its 95 % confidence interval. The ends are nan if there is no interval."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def has_ends(self) -> bool:
        """Whether there is an interval. There is none for known values, and for estimates from too little data."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]" if self.has_ends else f"{self.value:.3f}"


def win_rate(tuned: NDArray[np.float64], base: NDArray[np.float64]) -> Interval:
    """The chance that a tuned image beats a base image of the same prompt from other noise, with its interval over prompts.

    Args:
        tuned: scores; see `win_rates`.
        base: scores; see `win_rates`.
    """
    return mean_interval(win_rates(tuned, base), comparisons=tuned.shape[0] * tuned.shape[1])


def win_rates(tuned: NDArray[np.float64], base: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of comparisons that the tuned policy wins for each prompt, of shape (P,). A tie counts half.

    With several criteria, an image beats another one if it is better by at least one criterion and worse by none.

    Args:
        tuned: scores of shape (P prompts, n images) or (P, n, C criteria). Image i was drawn from noise i.
        base: the base model's scores, of the same shape and from the same noise. Pairs of images from the same noise are not counted, because an
            invisible shift in one direction would win all of them. They are only for comparing pictures by eye.
    """
    n = tuned.shape[1]
    difference = np.atleast_3d(tuned)[:, :, None] - np.atleast_3d(base)[:, None, :]
    better, worse = (difference > 0).any(axis=-1), (difference < 0).any(axis=-1)
    wins = np.where(better == worse, 0.5, np.where(better, 1.0, 0.0))
    return wins[:, ~np.eye(n, dtype=bool)].mean(axis=1)


def mean_interval(per_prompt: NDArray[np.float64], *, comparisons: int) -> Interval:
    """Mean over P prompts of a share in [0, 1], with a 95 % interval of the mean over the population of prompts, cut to [0, 1].

    The interval is Student's t with one additional prompt of unknown share, uniform on [0, 1], which has mean 1/2 and variance 1/12. With x the shares of
    the P prompts,

        m = (sum of x + 1/2) / (P + 1)       s^2 = (sum of (x - m)^2 + (1/2 - m)^2 + 1/12) / P       m -+ t(0.975, P) s / sqrt(P + 1)

    Agresti and Coull (1998) likewise add successes and failures that were not observed. It keeps a share of 1, or prompts that happen to agree, from
    seeming certain: with two prompts and nearly all comparisons won, plain t covers the truth in only 1 of 4 experiments, and a bootstrap over prompts in
    fewer still. The mean of x always lies within the interval, and with many prompts the additional one hardly matters.

    If the shares are of few comparisons each, Wilson's interval (1927) for all comparisons together may be wider; the interval then extends to it.

    Args:
        per_prompt: the shares, of shape (P,).
        comparisons: the number of independent comparisons behind all shares together: pictures of a policy, or questions.
    """
    count, value = len(per_prompt), float(per_prompt.mean())
    middle = (per_prompt.sum() + 0.5) / (count + 1)
    squares = ((per_prompt - middle) ** 2).sum() + (0.5 - middle) ** 2 + UNKNOWN_VARIANCE
    half = stats.t.ppf(0.975, count) * math.sqrt(squares / count / (count + 1))
    low, high = _wilson(value, comparisons)
    return Interval(value=value, low=float(max(0.0, min(low, middle - half))), high=float(min(1.0, max(high, middle + half))))


def _wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's interval for a share of `count` comparisons. Because ties count half, the number of successes need not be whole."""
    over = Z**2 / count
    half = math.sqrt(over * share * (1 - share) + over**2 / 4)
    return (share + over / 2 - half) / (1 + over), (share + over / 2 + half) / (1 + over)
