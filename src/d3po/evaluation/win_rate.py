"""Win rate on independent noise, with a 95 % interval over prompts."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

NO_CHANGE = 0.5
"""The win rate of a policy that is as good as the base model; that of the base model itself."""
UNKNOWN_VARIANCE = 1 / 12
"""Of a share of which nothing is known: uniform on [0, 1]."""
Z = float(stats.norm.ppf(0.975))


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its 95 % confidence interval; its ends are nan where it has none."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def has_ends(self) -> bool:
        """False of what is known and not measured, and of what too little was measured of."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]" if self.has_ends else f"{self.value:.3f}"


def win_rate(tuned: NDArray[np.float64], base: NDArray[np.float64]) -> Interval:
    """The chance that a tuned image beats a base image of the same prompt drawn from other noise, with its interval over prompts; see `win_rates`."""
    return mean_interval(win_rates(tuned, base), comparisons=tuned.shape[0] * tuned.shape[1])


def win_rates(tuned: NDArray[np.float64], base: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of its comparisons that the tuned policy wins, (P,) by prompt; a tie counts half.

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
    return wins[:, ~np.eye(n, dtype=bool)].mean(axis=1)


def mean_interval(per_prompt: NDArray[np.float64], *, comparisons: int) -> Interval:
    """Mean over P prompts of a share in [0, 1] with a 95 % interval of the mean over all prompts there could be, cut to [0, 1].

    Student's t, after one more prompt was counted of which nothing is known: a share uniform on [0, 1], of mean 1/2 and variance 1/12. With x those of
    the P prompts,

        m = (sum of x + 1/2) / (P + 1)       s^2 = (sum of (x - m)^2 + (1/2 - m)^2 + 1/12) / P       m -+ t(0.975, P) s / sqrt(P + 1)

    As Agresti and Coull (1998) add successes and failures that were not seen, so that a share of 1, or prompts that happen to agree, are not taken for
    certainty: plain t covers the truth in 1 of 4 experiments of two prompts where nearly all is won, and a bootstrap over prompts in still fewer. The mean of
    x always lies within, and the one more prompt is soon outvoted.

    Where a prompt's share is of few comparisons, Wilson's interval (1927) for all of them together may reach further, and then does.

    Args:
        per_prompt: the shares, (P,).
        comparisons: how many that tell nothing of each other are behind all shares together: pictures of a policy, or questions.
    """
    count, value = len(per_prompt), float(per_prompt.mean())
    middle = (per_prompt.sum() + 0.5) / (count + 1)
    squares = ((per_prompt - middle) ** 2).sum() + (0.5 - middle) ** 2 + UNKNOWN_VARIANCE
    half = stats.t.ppf(0.975, count) * math.sqrt(squares / count / (count + 1))
    low, high = _wilson(value, comparisons)
    return Interval(value=value, low=float(max(0.0, min(low, middle - half))), high=float(min(1.0, max(high, middle + half))))


def _wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's interval for a share of so many; where ties count half, it need not be that of a whole number."""
    over = Z**2 / count
    half = math.sqrt(over * share * (1 - share) + over**2 / 4)
    return (share + over / 2 - half) / (1 + over), (share + over / 2 + half) / (1 + over)
