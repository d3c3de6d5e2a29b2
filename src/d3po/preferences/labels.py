"""From votes to labels of single images: how well each image is liked, for objectives that read images one by one.

| answer | what it says about a picture |
|---|---|
| up, down | 1, -1 |
| marks (of bad ones) | -1 of marked, 1 of unmarked ones |
| score | (score - 3) / 2, so 5 is 1 and 1 is -1 |
| both bad | -1 of both |
| win, share, rank, best and worst, tie | 2 s - 1, where s is the picture's mean share of preference against the pictures it was compared with |
| skip, flag | nothing |
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import fsum

from d3po.preferences.conversion import pair_judgements, weighted_mean
from d3po.preferences.records import Vote

ABSOLUTE = frozenset({"up", "down", "marks", "score", "both_bad"})
"""Outcomes that say something about each picture by itself."""


@dataclass(frozen=True, kw_only=True)
class ImageLabel:
    """The label of one image."""

    image: int
    """Image id."""
    value: float
    """From -1 (disliked by all) to 1 (liked by all); or a reward, in the reward's unit."""
    weight: float = 1.0
    """The sum of the reliabilities of its annotators."""


def labels_of(votes: Iterable[Vote], *, reliability: Mapping[int, float] | None = None) -> list[ImageLabel]:
    """Make one label of each image that any vote says something about, ordered by image id, whatever the order of the votes.

    Args:
        votes: current votes.
        reliability: the weight of an annotator, by annotator id; 1 for annotators that are not named. Annotators with weight 0 are left out.

    Returns:
        Labels whose value is the weighted mean over annotators of each annotator's mean, and whose weight is the sum of the annotators' weights.
    """
    trust, votes = reliability or {}, list(votes)
    said: dict[tuple[int, int], list[float]] = defaultdict(list)
    """The values that each annotator gave to each image."""
    for vote in votes:
        for image, value in _absolute(vote).items():
            said[image, vote.annotator].append(value)
    for judged in pair_judgements(vote for vote in votes if vote.answer.outcome not in ABSOLUTE):
        said[judged.image_a, judged.annotator].append(2 * judged.target - 1)
        said[judged.image_b, judged.annotator].append(1 - 2 * judged.target)
    by_image: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for (image, annotator), values in sorted(said.items()):
        if (weight := trust.get(annotator, 1.0)) > 0:
            by_image[image].append((weight, fsum(values) / len(values)))
    return [_pooled(image, judged) for image, judged in sorted(by_image.items())]


def _pooled(image: int, judged: list[tuple[float, float]]) -> ImageLabel:
    value, total = weighted_mean(judged)
    return ImageLabel(image=image, value=value, weight=total)


def _absolute(vote: Vote) -> Mapping[int, float]:
    answer = vote.answer
    match answer.outcome:
        case "up":
            return dict.fromkeys(vote.images, 1.0)
        case "down" | "both_bad":
            return dict.fromkeys(vote.images, -1.0)
        case "marks":
            return {image: 1.0 - 2.0 * answer.values.get(image, 0.0) for image in vote.images}
        case "score":
            return {image: (score - 3) / 2 for image, score in answer.values.items()}
        case _:
            return {}
