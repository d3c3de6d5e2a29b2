"""From votes to comparisons: what each kind of answer says about every two of its pictures.

| answer | what it says about two pictures |
|---|---|
| win | the winner beats the other |
| share | a's share of preference, as given |
| rank | the smaller rank beats the larger; equal ranks tie; a picture without a rank is left out |
| best and worst | the best beats all others, all others beat the worst; nothing about two others |
| marks (of bad ones) | unmarked beats marked; nothing about two marked or two unmarked ones |
| score | the larger beats the smaller, equal scores tie |
| up, down | up beats down; nothing about two ups or two downs |
| tie | every pair of the question ties |
| both bad, skip, flag | nothing |

Scores and thumbs are about one picture at a time. They are compared only within one annotator, prompt, round and purpose, since one person's 4 is not
another's. The caller selects the votes to convert (those for training, not those of a blind test).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from math import fsum

from d3po.preferences.records import Comparison, Vote

Verdict = Callable[[float, float], float | None]
"""Computes a's share of preference from the values of pictures a and b; None if they say nothing."""


@dataclass(frozen=True, kw_only=True)
class PairJudgement:
    """What one vote says about two pictures of one prompt."""

    prompt: int
    """Prompt id."""
    image_a: int
    """The smaller image id."""
    image_b: int
    """The larger image id."""
    annotator: int
    """Annotator id."""
    target: float
    """The share of preference that a holds: 1 a is preferred, 0 b is, 0.5 a tie."""


def comparisons_of(votes: Iterable[Vote], *, reliability: Mapping[int, float] | None = None) -> list[Comparison]:
    """Make one comparison of each pair of pictures that any vote says something about, ordered by prompt and image ids, whatever the order of the votes.

    Args:
        votes: current votes.
        reliability: the weight of an annotator's judgements, by annotator id; 1 for annotators that are not named. Judgements with weight 0 are left out.

    Returns:
        Comparisons with image_a < image_b. The target is the mean of the judgements, weighted by reliability; the weight is the sum of the reliabilities.
    """
    trust = reliability or {}
    shares: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    for said in pair_judgements(votes):
        weight = trust.get(said.annotator, 1.0)
        if weight > 0:
            shares[said.image_a, said.image_b].append((weight, said.target))
    return [_pooled(pair, judged) for pair, judged in shares.items()]


def pair_judgements(votes: Iterable[Vote]) -> list[PairJudgement]:
    """List everything that the votes say about two pictures, ordered by prompt, image ids, annotator and target.

    If an annotator's votes on two questions say something about one pair, the pair occurs twice.
    """
    alone: dict[tuple[object, ...], list[Vote]] = defaultdict(list)
    said: list[PairJudgement] = []
    for vote in votes:
        if vote.answer.outcome in ("score", "up", "down"):
            alone[vote.prompt, vote.annotator, vote.round, vote.purpose, vote.kind].append(vote)
        else:
            said += _judgements(vote, *_values_of(vote))
    for together in alone.values():
        said += _judgements(together[0], *_values_of_single(together))
    return sorted(said, key=lambda each: (each.prompt, each.image_a, each.image_b, each.annotator, each.target))


def _pooled(pair: tuple[int, int], judged: list[tuple[float, float]]) -> Comparison:
    target, total = weighted_mean(judged)
    return Comparison(image_a=pair[0], image_b=pair[1], target=min(1.0, target), weight=total)


def weighted_mean(said: list[tuple[float, float]]) -> tuple[float, float]:
    """The weighted mean of (weight, value) pairs, and the sum of their weights. Both are exactly the same in any order of the pairs."""
    total = fsum(weight for weight, _ in said)
    return fsum(weight * value for weight, value in said) / total, total


def _judgements(vote: Vote, values: Mapping[int, float], verdict: Verdict) -> Iterator[PairJudgement]:
    for a, b in combinations(sorted(values), 2):
        target = verdict(values[a], values[b])
        if target is not None:
            yield PairJudgement(prompt=vote.prompt, image_a=a, image_b=b, annotator=vote.annotator, target=target)


def _values_of(vote: Vote) -> tuple[Mapping[int, float], Verdict]:
    """A value of each picture that the vote says something about, and the function that compares two values."""
    answer, images = vote.answer, vote.images
    match answer.outcome:
        case "win":
            return {image: float(image == answer.winner) for image in images}, _larger_wins
        case "tie":
            return dict.fromkeys(images, 0.0), _larger_wins_or_tie
        case "share":
            return answer.values, _share
        case "rank":
            return {image: -place for image, place in answer.values.items()}, _larger_wins_or_tie
        case "best_worst":
            return {image: answer.values.get(image, 0.0) for image in images}, _larger_wins
        case "marks":
            return {image: -answer.values.get(image, 0.0) for image in images}, _larger_wins
        case _:
            return {}, _larger_wins


def _values_of_single(votes: list[Vote]) -> tuple[Mapping[int, float], Verdict]:
    """The values of one annotator's scores or thumbs of a prompt, and the function that compares two. Of two votes on a picture the later one counts."""
    values: dict[int, float] = {}
    for vote in sorted(votes, key=lambda vote: vote.sequence):
        if vote.answer.outcome == "score":
            values.update(vote.answer.values)
        else:
            values.update(dict.fromkeys(vote.images, float(vote.answer.outcome == "up")))
    return values, _larger_wins_or_tie if votes[0].answer.outcome == "score" else _larger_wins


def _larger_wins(a: float, b: float) -> float | None:
    return None if a == b else float(a > b)


def _larger_wins_or_tie(a: float, b: float) -> float | None:
    return 0.5 if a == b else float(a > b)


def _share(a: float, b: float) -> float | None:  # noqa: ARG001 - the two sum to 1
    return a
