"""How far annotators agree, and which annotators are suspicious.

Everything is counted by image id; the positions in which pictures were shown are used for the position bias alone.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import median

import krippendorff
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from d3po.preferences.conversion import PairJudgement, pair_judgements
from d3po.preferences.records import Answer, Vote

RESAMPLES = 1000
"""Bootstrap samples of an interval."""
FAST_MS = 300
"""Nobody looks at two pictures in less time, in milliseconds."""

VERDICTS = np.array([0.0, 0.5, 1.0])
"""The possible verdicts on a pair (a, b): b is better, tie, a is better. Under the interval metric a tie against a win is a quarter of a contradiction."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Krippendorff's alpha over pairs compared by two or more annotators: 1 is full agreement, 0 is chance, below 0 is worse than chance."""

    alpha: float | None
    """None where alpha is not defined: no pair was compared by two annotators, or every verdict is a tie."""
    low: float | None
    """Lower end of the 95 % bootstrap interval."""
    high: float | None
    """Upper end of the 95 % bootstrap interval."""
    pairs: int
    """Pairs compared by two or more annotators."""
    annotators: int
    """How many annotators compared those pairs."""

    def __str__(self) -> str:
        if self.alpha is None or self.low is None or self.high is None:
            return f"unknown ({self.pairs} pairs with two judges or more)"
        return f"{self.alpha:.3f} [{self.low:.3f}, {self.high:.3f}] over {self.pairs} pairs, {self.annotators} annotators"


@dataclass(frozen=True, kw_only=True)
class Proportion:
    """`count` cases out of `total`, with Wilson's 95 % interval."""

    count: int
    total: int

    @property
    def share(self) -> float | None:
        """The share of cases; None if `total` is 0."""
        return self.count / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of the 95 % interval; (0, 1) if `total` is 0."""
        if not self.total:
            return 0.0, 1.0
        ends = stats.binomtest(self.count, self.total).proportion_ci(method="wilson")
        return float(ends.low), float(ends.high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.share:.2f} [{low:.2f}, {high:.2f}] of {self.total}" if self.total else "-"


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """When an annotator is suspicious. A share counts as suspicious only where its whole 95 % interval is beyond the threshold."""

    answers: int = 20
    """Smallest number of cases from which a share is tested."""
    gold: float = 0.8
    """Smallest share of gold questions answered right."""
    consistency: float = 0.6
    """Smallest share of repeated pairs answered the same way; guessing gives 0.5."""
    others: float = 0.6
    """Smallest share of agreement with the majority of the others; guessing gives 0.5, and people who try reach about 0.7."""
    side_p: float = 0.001
    """Largest p-value at which a preference for one side is suspicious."""
    fast: float = 0.1
    """Largest share of answers given in less than 300 ms."""
    cycles: float = 0.2
    """Largest share of circular triples; guessing gives 0.25."""


@dataclass(frozen=True, kw_only=True)
class AnnotatorReport:
    """Statistics of one annotator's current votes."""

    annotator: int
    votes: int
    gold: Proportion
    """Gold questions answered right."""
    consistent: Proportion
    """Repeated pairs, with sides swapped, that were answered the same way; only pairs with a winner both times count."""
    others: Proportion
    """Judgements that agree with the majority of the other annotators, ties left out."""
    left: Proportion
    """Pairs won by the picture shown on the left."""
    left_p: float | None
    """Two-sided binomial p-value of `left` against one half."""
    median_rt_ms: float | None
    fast: Proportion
    """Answers given in less than 300 ms."""
    cycles: Proportion
    """Circular triples of pictures (a over b, b over c, c over a), of all triples whose three pairs have a winner."""
    suspicions: tuple[str, ...]
    """One sentence for each suspicion; empty if there is none."""


def agreement(votes: Iterable[Vote], *, seed: int = 0) -> Agreement:
    """Krippendorff's alpha (interval metric on lost 0, tied 0.5, won 1) with a percentile bootstrap over pairs.

    Every pair enters twice, as (a, b) and as (b, a) with the verdict reversed. So alpha does not depend on which picture has the smaller id: agreement by
    chance is that of a coin flip, even if later pictures, with larger ids, are better.

    Args:
        votes: current votes, of any kind.
        seed: seed of the bootstrap.
    """
    counts, annotators = _verdict_counts(verdicts_by_annotator(pair_judgements(_first(votes))))
    alpha = _alpha(counts)
    if alpha is None:
        return Agreement(alpha=None, low=None, high=None, pairs=len(counts), annotators=annotators)
    low, high = np.nanpercentile(_resampled(counts, seed), [2.5, 97.5])
    return Agreement(alpha=alpha, low=min(float(low), alpha), high=max(float(high), alpha), pairs=len(counts), annotators=annotators)


def report_annotators(
    votes: Sequence[Vote], *, gold: Mapping[int, Answer] | None = None, thresholds: Thresholds | None = None
) -> list[AnnotatorReport]:
    """Report on every annotator, ordered by id.

    Args:
        votes: current votes.
        gold: the expected answer of each gold question, by question id.
        thresholds: when an annotator is suspicious; `Thresholds()` by default.
    """
    verdicts = verdicts_by_annotator(pair_judgements(_first(votes)))
    by_annotator: dict[int, list[Vote]] = defaultdict(list)
    for vote in votes:
        by_annotator[vote.annotator].append(vote)
    with_others = _agreement_with_others(verdicts)
    return [
        _report(own, gold or {}, with_others.get(annotator, Proportion(count=0, total=0)), thresholds or Thresholds())
        for annotator, own in sorted(by_annotator.items())
    ]


def verdicts_by_annotator(judgements: Iterable[PairJudgement]) -> dict[tuple[int, int], dict[int, float]]:
    """Each annotator's verdict on each pair of image ids (a, b): 1 if a is preferred, 0 if b is, 0.5 for a tie.

    Several judgements of one annotator on a pair count by their majority; without one they are a tie.
    """
    shares: dict[tuple[int, int], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for said in judgements:
        shares[said.image_a, said.image_b][said.annotator].append(said.target)
    return {pair: {who: _verdict(said) for who, said in by.items()} for pair, by in shares.items()}


def answered_right(vote: Vote, expected: Answer) -> bool:
    """Whether a vote agrees with the expected answer on every two pictures; a score may differ by one point."""
    if expected.outcome == "score":
        return vote.answer.outcome == "score" and all(
            abs(vote.answer.values.get(image, float("inf")) - score) <= 1 for image, score in expected.values.items()
        )
    due = _said(replace(vote, answer=expected))
    if not due:
        return vote.answer.outcome == expected.outcome
    said = _said(vote)
    return all(said.get(pair) == target for pair, target in due.items())


def _first(votes: Iterable[Vote]) -> list[Vote]:
    """The votes without those on repeated questions, so that no annotator counts twice."""
    return [vote for vote in votes if vote.purpose != "repeat"]


def _consistency(own: list[Vote]) -> Proportion:
    """How often one annotator gives the same answer to a repeated pair."""
    before = {vote.images: vote.answer.winner for vote in own if vote.purpose == "train" and vote.answer.outcome == "win"}
    again = [vote for vote in own if vote.purpose == "repeat" and vote.answer.outcome == "win" and vote.images in before]
    return Proportion(count=sum(before[vote.images] == vote.answer.winner for vote in again), total=len(again))


def _said(vote: Vote) -> dict[tuple[int, int], float]:
    return {(each.image_a, each.image_b): each.target for each in pair_judgements([vote])}


def _verdict(shares: list[float]) -> float:
    mean = sum(shares) / len(shares)
    return 0.5 if mean == 0.5 else float(mean > 0.5)


def _verdict_counts(verdicts: Mapping[tuple[int, int], Mapping[int, float]]) -> tuple[NDArray[np.int64], int]:
    """How often each of `VERDICTS` was given, shape (pairs compared by two or more annotators, 3), and by how many annotators in all."""
    shared = [by for by in verdicts.values() if len(by) >= 2]
    counted = (Counter(by.values()) for by in shared)
    counts = np.array([[count[verdict] for verdict in (0.0, 0.5, 1.0)] for count in counted], dtype=np.int64).reshape(-1, 3)
    return counts, len({who for by in shared for who in by})


def _alpha(counts: NDArray[np.int64]) -> float | None:
    both_ways = np.concatenate([counts, counts[:, ::-1]])
    if not both_ways[:, [0, 2]].any():
        return None
    return float(krippendorff.alpha(value_counts=both_ways, value_domain=VERDICTS, level_of_measurement="interval"))


def _resampled(counts: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Alphas (RESAMPLES,) of pairs drawn with replacement; nan where a sample contains only ties.

    `krippendorff` counts every pair again for every sample. Here pairs with equal counts are drawn together, and their contribution to the coincidence
    matrix is computed once, so that a thousand samples cost about as much as a few.
    """
    kinds, frequency = np.unique(counts, axis=0, return_counts=True)
    together = kinds[:, :, None] * kinds[:, None, :] - kinds[:, :, None] * np.eye(3)
    coincidences = (together + together[:, ::-1, ::-1]) / (kinds.sum(axis=1) - 1)[:, None, None]
    drawn = np.random.default_rng(seed).multinomial(len(counts), frequency / len(counts), size=RESAMPLES)
    observed = np.einsum("rk,kvw->rvw", drawn, coincidences)
    values = observed.sum(axis=2)
    total = values.sum(axis=1)[:, None, None]
    expected = (values[:, :, None] * values[:, None, :] - values[:, :, None] * np.eye(3)) / (total - 1)
    distance = (VERDICTS[:, None] - VERDICTS) ** 2
    chance = (expected * distance).sum(axis=(1, 2))
    return 1 - (observed * distance).sum(axis=(1, 2)) / np.where(chance > 0, chance, np.nan)


def _agreement_with_others(verdicts: Mapping[tuple[int, int], Mapping[int, float]]) -> dict[int, Proportion]:
    agreed: Counter[int] = Counter()
    judged: Counter[int] = Counter()
    for by in verdicts.values():
        balance = sum(by.values()) - len(by) / 2
        for who, own in by.items():
            rest = balance - (own - 0.5)
            if own != 0.5 and rest != 0:
                judged[who] += 1
                agreed[who] += (own > 0.5) == (rest > 0)
    return {who: Proportion(count=agreed[who], total=total) for who, total in judged.items()}


def _report(own: list[Vote], gold: Mapping[int, Answer], others: Proportion, thresholds: Thresholds) -> AnnotatorReport:
    tests = [answered_right(vote, gold[vote.question]) for vote in own if vote.question in gold]
    left = [vote.shown[0] == vote.answer.winner for vote in own if vote.kind == "pair" and vote.answer.outcome == "win"]
    times = [vote.rt_ms for vote in own if vote.rt_ms is not None]
    report = AnnotatorReport(
        annotator=own[0].annotator,
        votes=len(own),
        gold=Proportion(count=sum(tests), total=len(tests)),
        consistent=_consistency(own),
        others=others,
        left=Proportion(count=sum(left), total=len(left)),
        left_p=float(stats.binomtest(sum(left), len(left)).pvalue) if left else None,
        median_rt_ms=float(median(times)) if times else None,
        fast=Proportion(count=sum(time < FAST_MS for time in times), total=len(times)),
        cycles=_cycles(_first(own)),
        suspicions=(),
    )
    return replace(report, suspicions=tuple(_suspicions(report, thresholds)))


def _cycles(own: list[Vote]) -> Proportion:
    """Circular triples among one annotator's answers to pairs. Rankings cannot be circular and are not counted."""
    beats: dict[int, dict[int, bool]] = defaultdict(dict)
    for (a, b), by in verdicts_by_annotator(pair_judgements(vote for vote in own if vote.kind == "pair")).items():
        verdict = next(iter(by.values()))
        if verdict != 0.5:
            beats[a][b] = verdict > 0.5
    count = total = 0
    for a, rivals in beats.items():
        for b, c in combinations(sorted(rivals), 2):
            if c in beats.get(b, {}):
                total += 1
                count += beats[a][b] == beats[b][c] != beats[a][c]
    return Proportion(count=count, total=total)


def _suspicions(report: AnnotatorReport, thresholds: Thresholds) -> list[str]:
    found: list[str] = []

    def enough(counted: Proportion) -> bool:
        return counted.total >= thresholds.answers

    if enough(report.gold) and report.gold.interval[1] < thresholds.gold:
        found.append(f"{report.gold.count} of {report.gold.total} gold questions right; {thresholds.gold:.0%} are expected")
    if enough(report.consistent) and report.consistent.interval[1] < thresholds.consistency:
        found.append(f"decided {report.consistent.count} of {report.consistent.total} pairs the same way again; guessing gives half")
    if enough(report.others) and report.others.interval[1] < thresholds.others:
        found.append(f"agrees with the others on {report.others.count} of {report.others.total} pairs; guessing gives half")
    if enough(report.left) and report.left_p is not None and report.left_p < thresholds.side_p:
        found.append(f"chose the left picture in {report.left.count} of {report.left.total} pairs (p = {report.left_p:.1g})")
    if enough(report.fast) and report.fast.interval[0] > thresholds.fast:
        found.append(f"{report.fast.count} of {report.fast.total} answers took less than {FAST_MS} ms")
    if enough(report.cycles) and report.cycles.interval[0] > thresholds.cycles:
        found.append(f"{report.cycles.count} of {report.cycles.total} triples judged in a circle; guessing gives a quarter")
    return found
