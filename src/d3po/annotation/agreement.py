"""How far annotators agree, and what is odd about one of them. Everything is counted on image ids; positions serve the position bias alone."""

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
FAST_MS = 300
"""Nobody looks at two pictures in less."""

VERDICTS = np.array([0.0, 0.5, 1.0])
"""What can be said of a pair: the other is better, they tie, it is better. A tie is half way, so against a win it counts a quarter of a contradiction."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Krippendorff's alpha over pairs judged by two annotators or more: 1 all agree, 0 as by chance, below 0 worse than chance."""

    alpha: float | None
    """None where nothing can be said: no pair has two judges, or all they ever said is tie."""
    low: float | None
    """Lower end of the 95 % bootstrap interval."""
    high: float | None
    pairs: int
    """Pairs with two judges or more."""
    annotators: int
    """How many annotators judged those pairs."""

    def __str__(self) -> str:
        if self.alpha is None or self.low is None or self.high is None:
            return f"unknown ({self.pairs} pairs with two judges or more)"
        return f"{self.alpha:.3f} [{self.low:.3f}, {self.high:.3f}] over {self.pairs} pairs, {self.annotators} annotators"


@dataclass(frozen=True, kw_only=True)
class Proportion:
    """So many of so many, with Wilson's 95 % interval; (0, 1) where there are none."""

    count: int
    total: int

    @property
    def share(self) -> float | None:
        """None where there are none."""
        return self.count / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end."""
        if not self.total:
            return 0.0, 1.0
        ends = stats.binomtest(self.count, self.total).proportion_ci(method="wilson")
        return float(ends.low), float(ends.high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.share:.2f} [{low:.2f}, {high:.2f}] of {self.total}" if self.total else "-"


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """When an annotator looks suspicious. A share is held against somebody only where its interval lies beyond the threshold."""

    answers: int = 20
    """Fewer than this are not judged."""
    gold: float = 0.8
    """Gold questions answered right, at least."""
    consistency: float = 0.6
    """Pairs decided the same way again, at least; guessing gives 0.5."""
    others: float = 0.6
    """Agreement with the majority of the others, at least; guessing gives 0.5, and people who try reach about 0.7."""
    side_p: float = 0.001
    """Below this p-value, choosing one side so often is no accident."""
    fast: float = 0.1
    """Share of answers under 300 ms, at most."""
    cycles: float = 0.2
    """Share of triples judged in a circle, at most; guessing gives 0.25."""


@dataclass(frozen=True, kw_only=True)
class AnnotatorReport:
    """What one annotator's current votes look like."""

    annotator: int
    votes: int
    gold: Proportion
    """Gold questions answered right."""
    consistent: Proportion
    """Pairs decided the same way when they came again with the sides swapped; ties, skips and the like are left out."""
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
    """Triples of pictures judged in a circle (a over b over c over a), of all those whose three pairs were decided."""
    suspicions: tuple[str, ...]
    """A plain sentence each; empty where nothing is odd."""


def agreement(votes: Iterable[Vote], *, seed: int = 0) -> Agreement:
    """Krippendorff's alpha (interval metric on lost 0, tied 0.5, won 1) with a percentile bootstrap over pairs.

    Every pair enters twice, as (a, b) and as (b, a) with the verdict turned. So it cannot matter which picture has the smaller id: chance
    agreement is that of a coin, even if later pictures, with larger ids, are the better ones.

    Args:
        votes: current votes, of any kind.
        seed: of the bootstrap.
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
    """A report on every annotator, by id.

    Args:
        votes: current votes.
        gold: by question id, what a gold question's answer must be.
        thresholds: when to be suspicious.
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
    """By pair of image ids, each annotator's verdict: 1 a is preferred, 0 b is, 0.5 a tie. Who contradicts himself evenly says tie."""
    shares: dict[tuple[int, int], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for said in judgements:
        shares[said.image_a, said.image_b][said.annotator].append(said.target)
    return {pair: {who: _verdict(said) for who, said in by.items()} for pair, by in shares.items()}


def answered_right(vote: Vote, expected: Answer) -> bool:
    """Whether a vote says of every two pictures what the expected answer says; scores may be one point off."""
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
    """Without what somebody was asked again, so that nobody counts twice."""
    return [vote for vote in votes if vote.purpose != "repeat"]


def _consistency(own: list[Vote]) -> Proportion:
    """How often one annotator says the same of a pair that comes again."""
    before = {vote.images: vote.answer.winner for vote in own if vote.purpose == "train" and vote.answer.outcome == "win"}
    again = [vote for vote in own if vote.purpose == "repeat" and vote.answer.outcome == "win" and vote.images in before]
    return Proportion(count=sum(before[vote.images] == vote.answer.winner for vote in again), total=len(again))


def _said(vote: Vote) -> dict[tuple[int, int], float]:
    return {(each.image_a, each.image_b): each.target for each in pair_judgements([vote])}


def _verdict(shares: list[float]) -> float:
    mean = sum(shares) / len(shares)
    return 0.5 if mean == 0.5 else float(mean > 0.5)


def _verdict_counts(verdicts: Mapping[tuple[int, int], Mapping[int, float]]) -> tuple[NDArray[np.int64], int]:
    """How often each of `VERDICTS` was given, shape (pairs with two judges or more, 3), and how many annotators gave them."""
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
    """Alphas (RESAMPLES,) of pairs drawn with replacement, nan where a draw holds ties alone.

    `krippendorff` counts every pair anew for every draw. Here pairs with equal counts are drawn together, and each kind's share of the matrix of
    coincidences is worked out once; a thousand draws then cost no more than a few.
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
    """Triples judged in a circle. A ranking cannot hold one, so only answers to pairs are looked at."""
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
