"""Active selection of pairs: which pairs of a prompt's images to ask next, given the votes so far.

The images of a prompt have scores s in logits, independent a priori with mean m and standard deviation `spread`. Image a beats b with probability
sigmoid(s_a - s_b) (Bradley and Terry). Given votes, the posterior of s is approximated by a normal distribution around its mode (Laplace). Asking about
a and b adds p (1 - p) (e_a - e_b)(e_a - e_b)^T to its precision, whatever the answer, so the log-determinant of the precision grows by

    log(1 + p (1 - p) v),    v = variance of s_a - s_b,    p = sigmoid(mean of s_a - s_b).

The next pair is the one for which this is largest (D-optimal design). A share of the pairs is drawn at random instead. Every choice is recorded with its
probability, so that averages over all pairs can be weighted by its inverse, and so that a proxy is assessed on random pairs only.

A proxy is any cheap guess at the order, such as a reward model. It shifts the prior's mean and narrows the prior, by as much as its correlation with
the votes justifies (`proxy_correlation`). A proxy without correlation changes nothing.
"""

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log1p, sqrt, tanh

import numpy as np
from numpy.typing import NDArray

from d3po.annotation.selection import all_pairs
from d3po.preferences.records import Comparison

SPREAD = 1.5
"""Standard deviation of scores within a prompt, in logits. Two people then agree on 70 % of pairs, as people are observed to."""
NEWTON_STEPS = 25
TOLERANCE = 1e-8
CORRELATIONS = np.linspace(0.0, 0.98, 99)
"""Grid over which a proxy's correlation is estimated. It starts at 0: a proxy that is wrong more often than right is ignored, not reversed."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A pair that was selected to be asked."""

    image_a: int
    image_b: int
    probability: float
    """The probability with which this pair was selected at this position."""
    at_random: bool
    """Whether it was drawn at random, not by its information."""


@dataclass(frozen=True, kw_only=True)
class Belief:
    """A normal distribution over the scores of a prompt's K images: the prior, or the posterior given votes."""

    images: tuple[int, ...]
    mean: NDArray[np.float64]
    """(K,) in logits."""
    covariance: NDArray[np.float64]
    """(K, K)."""


def prior_belief(
    images: Sequence[int], *, proxy: Mapping[int, float] | None = None, correlation: float = 0.0, spread: float = SPREAD
) -> Belief:
    """The prior over the scores, before any vote.

    Args:
        images: image ids of one prompt.
        proxy: any guess at the scores, by image id, on any scale; only differences within the prompt matter.
        correlation: correlation of the proxy with the scores within prompts, in [0, 1), see `proxy_correlation`.
        spread: standard deviation of scores within a prompt, in logits.
    """
    standard = np.zeros(len(images)) if proxy is None else _standardised([proxy[image] for image in images])
    return Belief(
        images=tuple(images),
        mean=correlation * spread * standard,
        covariance=spread**2 * (1 - correlation**2) * np.eye(len(images)),
    )


def updated(prior: Belief, comparisons: Iterable[Comparison]) -> Belief:
    """The posterior over the scores given comparisons of the same images. Soft targets count as shares of answers, weights as numbers of answers."""
    place = {image: index for index, image in enumerate(prior.images)}
    said = [(place[each.image_a], place[each.image_b], each.target, each.weight) for each in comparisons]
    if not said:
        return prior
    a, b = (np.array([each[side] for each in said]) for side in (0, 1))
    target, weight = (np.array([each[part] for each in said]) for part in (2, 3))
    design = np.zeros((len(said), len(place)))
    design[np.arange(len(said)), a], design[np.arange(len(said)), b] = 1.0, -1.0
    precision, mean = np.linalg.inv(prior.covariance), prior.mean
    for _ in range(NEWTON_STEPS):
        chance = _sigmoid(design @ mean)
        gradient = design.T @ (weight * (target - chance)) - precision @ (mean - prior.mean)
        step = np.linalg.solve(_information(design, weight, chance) + precision, gradient)
        mean = mean + step / max(1.0, float(np.abs(step).max()))
        if float(np.abs(step).max()) < TOLERANCE:
            break
    known = _information(design, weight, _sigmoid(design @ mean)) + precision
    return Belief(images=prior.images, mean=mean, covariance=np.asarray(np.linalg.inv(known), dtype=np.float64))


def next_pairs(
    belief: Belief,
    count: int,
    *,
    seed: str,
    asked: Collection[tuple[int, int]] = (),
    waiting: Collection[tuple[int, int]] = (),
    random_share: float = 0.2,
) -> list[Chosen]:
    """Select the next pairs of one prompt to ask, each as if the ones before it had been answered.

    Args:
        belief: the current distribution over the scores.
        count: how many pairs to select; fewer are returned if fewer remain.
        seed: seed of the random choices; the same seed selects the same pairs.
        asked: pairs that must not be asked again, in either order.
        waiting: the pairs among `asked` that have no answer yet; the selection treats them as answered.
        random_share: the probability that a pair is drawn at random.
    """
    draw, done = random.Random(seed), {frozenset(pair) for pair in asked}
    place = {image: index for index, image in enumerate(belief.images)}
    left = [pair for pair in all_pairs(belief.images) if frozenset(pair) not in done]
    for a, b in waiting:
        belief = _as_if_asked(belief, place[a], place[b])
    chosen: list[Chosen] = []
    while left and len(chosen) < count:
        gains = [_gain(belief, place[a], place[b]) for a, b in left]
        best = left[int(np.argmax(gains))]
        at_random = draw.random() < random_share
        pair = draw.choice(left) if at_random else best
        probability = random_share / len(left) + (1 - random_share) * (pair == best)
        chosen.append(Chosen(image_a=pair[0], image_b=pair[1], probability=probability, at_random=at_random))
        left.remove(pair)
        belief = _as_if_asked(belief, place[pair[0]], place[pair[1]])
    return chosen


def proxy_correlation(
    comparisons: Iterable[Comparison], proxy: Mapping[int, float], groups: Iterable[Sequence[int]], *, spread: float = SPREAD
) -> float:
    """How well a proxy predicts what people prefer: its correlation with the scores within prompts, in [0, 1).

    Returns the posterior mean of the correlation under a uniform prior on [0, 0.98], and 0 without comparisons.

    Args:
        comparisons: comparisons of pairs that were drawn at random. Actively selected pairs are harder, so they would make the proxy look worse.
        proxy: the proxy's scores by image id.
        groups: the image ids of each prompt, for the proxy's scale within a prompt.
        spread: standard deviation of scores within a prompt, in logits.
    """
    standard = {
        image: float(value) for images in groups for image, value in zip(images, _standardised([proxy[i] for i in images]), strict=True)
    }
    said = [(standard[each.image_a] - standard[each.image_b], each.target, each.weight) for each in comparisons]
    if not said:
        return 0.0
    difference, target, weight = (np.array(part) for part in zip(*said, strict=True))
    residual = 2 * spread**2 * (1 - CORRELATIONS**2)
    slope = CORRELATIONS * spread / np.sqrt(1 + np.pi / 8 * residual)  # a logistic of a normal variable, averaged (MacKay 1992)
    chance = _sigmoid(slope[:, None] * difference)
    likelihood = (weight * (target * np.log(chance) + (1 - target) * np.log1p(-chance))).sum(axis=1)
    plausible = np.exp(likelihood - likelihood.max())
    return float((plausible * CORRELATIONS).sum() / plausible.sum())


def _gain(belief: Belief, a: int, b: int) -> float:
    return log1p(_told(belief, a, b) * _variance(belief, a, b))


def _told(belief: Belief, a: int, b: int) -> float:
    """How much an answer adds to the precision of the difference s_a - s_b: p (1 - p)."""
    chance = 0.5 * (1 + tanh(float(belief.mean[a] - belief.mean[b]) / 2))
    return chance * (1 - chance)


def _variance(belief: Belief, a: int, b: int) -> float:
    return float(belief.covariance[a, a] + belief.covariance[b, b] - 2 * belief.covariance[a, b])


def _as_if_asked(belief: Belief, a: int, b: int) -> Belief:
    """The belief with the precision that an answer on a and b would give it, and the same mean (rank-one update by Sherman and Morrison)."""
    told, column = _told(belief, a, b), belief.covariance[:, a] - belief.covariance[:, b]
    shrunk = belief.covariance - told / (1 + told * _variance(belief, a, b)) * np.outer(column, column)
    return Belief(images=belief.images, mean=belief.mean, covariance=shrunk)


def _information(design: NDArray[np.float64], weight: NDArray[np.float64], chance: NDArray[np.float64]) -> NDArray[np.float64]:
    return design.T @ ((weight * chance * (1 - chance))[:, None] * design)


def _standardised(values: Sequence[float]) -> NDArray[np.float64]:
    given = np.asarray(values, dtype=np.float64)
    centred = given - float(given.mean())
    scale = sqrt(float((centred**2).mean()))
    return centred / scale if scale > 0 else centred


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * (1 + np.tanh(x / 2))
