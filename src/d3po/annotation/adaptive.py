"""Which pairs of a prompt's images to ask next, given what was said so far: those that tell most about the order.

The images of a prompt have scores s in logits, a priori independent with mean m and standard deviation `spread`, and a beats b with probability
sigmoid(s_a - s_b) (Bradley and Terry). Given judgements, s is about normal around its most likely value (Laplace). Asking a and b adds
p (1 - p) (e_a - e_b)(e_a - e_b)^T to its precision, whatever the answer, so the log of the determinant grows by

    log(1 + p (1 - p) v),    v = variance of s_a - s_b,    p = sigmoid(mean of s_a - s_b),

and the next pair is the one for which that is largest (D-optimal design). Some slots are filled at random instead, and every choice comes with its
probability: random ones are what a proxy's worth may be judged by, and averages over all can be weighted by one over the probability.

A proxy is any cheap guess at the order, such as a reward model. It moves the prior's mean, and narrows the prior, by as much as its correlation with
people's judgements allows (`proxy_correlation`); a worthless one is found to be worthless, and then changes nothing.
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
"""Standard deviation of scores within a prompt, in logits. Two people then agree on 70 % of pairs, as they do."""
NEWTON_STEPS = 25
TOLERANCE = 1e-8
CORRELATIONS = np.linspace(0.0, 0.98, 99)
"""Where a proxy's correlation is looked for: a proxy that is wrong more often than right is not turned round but ignored."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A pair to ask."""

    image_a: int
    image_b: int
    probability: float
    """Of this pair being chosen for this slot."""
    at_random: bool


@dataclass(frozen=True, kw_only=True)
class Belief:
    """What is thought of the scores of a prompt's images."""

    images: tuple[int, ...]
    mean: NDArray[np.float64]
    """(K,) in logits."""
    covariance: NDArray[np.float64]
    """(K, K)."""


def prior_belief(
    images: Sequence[int], *, proxy: Mapping[int, float] | None = None, correlation: float = 0.0, spread: float = SPREAD
) -> Belief:
    """What is thought before anybody has judged.

    Args:
        images: of one prompt.
        proxy: any guess at the scores, by image id, on any scale; only differences within the prompt matter.
        correlation: of the proxy with the scores within prompts, in [0, 1), see `proxy_correlation`.
        spread: standard deviation of scores within a prompt, in logits.
    """
    standard = np.zeros(len(images)) if proxy is None else _standardised([proxy[image] for image in images])
    return Belief(
        images=tuple(images),
        mean=correlation * spread * standard,
        covariance=spread**2 * (1 - correlation**2) * np.eye(len(images)),
    )


def updated(prior: Belief, comparisons: Iterable[Comparison]) -> Belief:
    """What is thought after these judgements of the same images; soft targets and weights count as shares and numbers of answers."""
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
    """The next pairs of one prompt to ask, each chosen as if those before it were answered.

    Args:
        belief: what is thought now.
        count: how many; fewer come back when no more are left.
        seed: who and what it is for; the same seed chooses the same.
        asked: pairs that are not to be asked again, in either order.
        waiting: those among them that have no answer yet: the next are chosen as if they had.
        random_share: the chance that a slot is filled at random.
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
    """How well a proxy knows what people prefer: its correlation with the scores within prompts, in [0, 1).

    The mean of the correlation given the judgements, every value from 0 up being equally likely before. Without judgements trust nothing: 0.

    Args:
        comparisons: judgements of pairs that were chosen at random; others would make the proxy look worse, as they are chosen to be hard.
        proxy: by image id.
        groups: the images of each prompt, for the proxy's scale within a prompt.
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
    """What an answer adds to the precision of a difference, p (1 - p)."""
    chance = 0.5 * (1 + tanh(float(belief.mean[a] - belief.mean[b]) / 2))
    return chance * (1 - chance)


def _variance(belief: Belief, a: int, b: int) -> float:
    return float(belief.covariance[a, a] + belief.covariance[b, b] - 2 * belief.covariance[a, b])


def _as_if_asked(belief: Belief, a: int, b: int) -> Belief:
    """The precision grows by what an answer tells, whichever it is; the mean stays (Sherman and Morrison)."""
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
