"""From votes to comparisons: what each kind of answer says of each two of its pictures, and no more than that.

| answer | what it says of two pictures |
|---|---|
| win | the winner beats the other |
| share | a's share of preference, as given |
| rank | the smaller place beats the larger; equal places tie; a picture without a place is left out |
| best and worst | the best beats all others, all others beat the worst; nothing about those in between |
| marks (of bad ones) | unmarked beats marked; nothing about two marked or two unmarked ones |
| score | the larger beats the smaller, equal scores tie |
| up, down | up beats down; nothing about two ups or two downs |
| tie | every pair of the question ties |
| both bad, skip, flag | nothing |

Scores and thumbs are asked of one picture at a time, so they are paired up within one annotator, prompt, round and purpose: one person's 4 is not
another's. Which votes to convert (train, not blind) is the caller's choice.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from math import fsum

from d3po.preferences.records import Comparison, Vote

Verdict = Callable[[float, float], float | None]
"""From the values of pictures a and b to a's share of preference, or None where nothing is said."""


@dataclass(frozen=True, kw_only=True)
class PairJudgement:
    """What one annotator said of two pictures of one prompt."""

    prompt: int
    """Prompt id."""
    image_a: int
    """The smaller image id."""
    image_b: int
    annotator: int
    target: float
    """The share of preference that a holds: 1 a is preferred, 0 b is, 0.5 a tie."""


def comparisons_of(votes: Iterable[Vote], *, reliability: Mapping[int, float] | None = None) -> list[Comparison]:
    """One comparison for each pair of pictures that anybody judged, ordered by prompt and image ids, whatever the order of the votes.

    Args:
        votes: current votes.
        reliability: by annotator id, how much a judgement counts; 1 for annotators it does not name. Judgements that count 0 are left out.

    Returns:
        Comparisons with image_a < image_b. The target is the reliability-weighted mean of the judgements, the weight is the sum of their reliabilities.
    """
    trust = reliability or {}
    shares: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    for said in pair_judgements(votes):
        weight = trust.get(said.annotator, 1.0)
        if weight > 0:
            shares[said.image_a, said.image_b].append((weight, said.target))
    return [_pooled(pair, judged) for pair, judged in shares.items()]


def pair_judgements(votes: Iterable[Vote]) -> list[PairJudgement]:
    """Everything the votes say of two pictures, ordered by prompt, image ids, annotator and target.

    An annotator who judged a pair in two questions appears twice.
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
    """The mean of (weight, value) pairs, and the sum of their weights, whatever their order."""
    total = fsum(weight for weight, _ in said)
    return fsum(weight * value for weight, value in said) / total, total


def _judgements(vote: Vote, values: Mapping[int, float], verdict: Verdict) -> Iterator[PairJudgement]:
    for a, b in combinations(sorted(values), 2):
        target = verdict(values[a], values[b])
        if target is not None:
            yield PairJudgement(prompt=vote.prompt, image_a=a, image_b=b, annotator=vote.annotator, target=target)


def _values_of(vote: Vote) -> tuple[Mapping[int, float], Verdict]:
    """A value for each picture that the vote speaks of, and how to read two of them."""
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
    """The same for one annotator's scores or thumbs of a prompt; of two votes on one picture the later one counts."""
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


def _share(a: float, b: float) -> float | None:  # noqa: ARG001 the two sum to 1
    return a
