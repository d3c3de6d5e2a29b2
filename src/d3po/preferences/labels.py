"""From votes to labels of single images: how well each is liked, for objectives that read images one by one.

| answer | what it says of a picture |
|---|---|
| up, down | 1, -1 |
| marks (of bad ones) | -1 of marked, 1 of unmarked ones |
| score | (score - 3) / 2, so 5 is 1 and 1 is -1 |
| both bad | -1 of both |
| win, share, rank, best and worst, tie | 2 s - 1, s being the picture's mean share of preference against the others it was compared with |
| skip, flag | nothing |

What was said in pairs keeps its order and its ties; what was said of single pictures is taken as it was said.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import fsum

from d3po.preferences.conversion import pair_judgements, weighted_mean
from d3po.preferences.records import Vote

ABSOLUTE = frozenset({"up", "down", "marks", "score", "both_bad"})
"""Outcomes that speak of each picture by itself."""


@dataclass(frozen=True, kw_only=True)
class ImageLabel:
    """How well one image is liked."""

    image: int
    value: float
    """From -1, disliked by all, to 1, liked by all; or a measured reward in its own unit."""
    weight: float = 1.0
    """How much it counts: the sum of its annotators' reliabilities."""


def labels_of(votes: Iterable[Vote], *, reliability: Mapping[int, float] | None = None) -> list[ImageLabel]:
    """One label for each image that anybody judged, ordered by image id, whatever the order of the votes.

    Args:
        votes: current votes.
        reliability: by annotator id, how much a judgement counts; 1 for annotators it does not name.

    Returns:
        The weighted mean of what each annotator said, and the sum of their weights.
    """
    trust, votes = reliability or {}, list(votes)
    said: dict[tuple[int, int], list[float]] = defaultdict(list)
    """What each annotator said of each image."""
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
