"""Bradley-Terry scores of pictures, and the reliability of annotators.

Bradley and Terry (1952): P(a beats b) = sigmoid(s_a - s_b); a tie counts as half a win each way. Scores are per prompt, with mean 0.

Reliabilities follow Crowd-BT (Chen, Bennett, Collins-Thompson, Horvitz 2013): annotator k agrees with the scores with probability eta_k and says the
opposite otherwise. An eta of 0.5 is guessing, so a judgement of annotator k has the weight max(0, 2 eta_k - 1). Scores and etas are fitted in turn:

    scores   Bradley-Terry on all judgements, each with its annotator's weight 2 eta - 1
    p        the probability that the judgement is true, from the scores *without that annotator's judgements*, so that nobody confirms himself
    r        eta p / (eta p + (1 - eta) (1 - p)), the probability that the annotator answered faithfully
    eta      (PRIOR_RIGHT + gold right + sum of r c) / (PRIOR_RIGHT + PRIOR_WRONG + gold asked + sum of c), with c = |2 p - 1|

c is how much the other annotators know about the pair. A judgement of a pair that nobody else has compared says nothing about its annotator.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import tanh

import choix
import numpy as np
from numpy.typing import NDArray

from d3po.preferences.conversion import PairJudgement
from d3po.preferences.records import Comparison

PRIOR_RIGHT, PRIOR_WRONG = 4.0, 1.0
"""Beta prior of eta: an unknown annotator is taken to be right 4 times in 5, as two people who agree on 68 % of pairs are."""
PSEUDO_TIES = 0.2
"""Weight of the tie added between every two pictures of a prompt: it keeps scores finite where one picture won every comparison, and pulls the scores
of rarely compared pictures together."""
ROUNDS = 30
"""Largest number of alternations between scores and etas."""
TOLERANCE = 1e-3
"""Convergence tolerance of etas, and of scores in logits; well below their statistical error."""
STEPS = 10
"""Largest number of steps of one fit of the scores between two estimates of eta; the next fit starts where it ended."""
ITERATIONS = 10_000
"""Largest number of iterations of the fit in `bradley_terry`."""


@dataclass(frozen=True, kw_only=True)
class GoldRecord:
    """An annotator's answers to gold questions."""

    right: int
    """How many were right."""
    asked: int
    """How many were answered."""


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """An annotator's estimated reliability."""

    right: float
    """eta, the probability that a judgement is faithful: 0.5 is guessing, 1 is never wrong, below 0.5 is more often wrong than right."""
    evidence: float
    """The number of judgements and gold questions that the estimate rests on, each counted by how much it says about the annotator."""

    @property
    def weight(self) -> float:
        """The weight of a judgement in a soft target: 2 eta - 1, but at least 0."""
        return max(0.0, 2 * self.right - 1)


def bradley_terry(comparisons: Sequence[Comparison], *, pseudo_ties: float = PSEUDO_TIES) -> dict[int, float]:
    """Fit the Bradley-Terry score of each picture, in logits, with mean 0.

    Args:
        comparisons: comparisons of pictures of one prompt. A soft target counts as a share of a win; weights count.
        pseudo_ties: weight of the tie added between every two pictures; it must be more than 0 where a picture won or lost every comparison.

    Returns:
        The scores by image id; empty without comparisons. The cost grows with the cube of the number of pictures.
    """
    images = sorted({image for each in comparisons for image in (each.image_a, each.image_b)})
    if not images:
        return {}
    place = {image: index for index, image in enumerate(images)}
    wins = np.full((len(images), len(images)), pseudo_ties / 2)
    np.fill_diagonal(wins, 0.0)
    for each in comparisons:
        a, b = place[each.image_a], place[each.image_b]
        wins[a, b] += each.weight * each.target
        wins[b, a] += each.weight * (1 - each.target)
    scores = choix.ilsr_pairwise_dense(wins, max_iter=ITERATIONS)
    return dict(zip(images, (float(score) for score in scores - scores.mean()), strict=True))


def soft_targets(comparisons: Sequence[Comparison], scores: Mapping[int, float], *, pull: float = 1.0) -> list[Comparison]:
    """Shrink the targets of comparisons towards the win probabilities that the scores predict.

    A pair with one judgement is then not certain, and a judgement that contradicts the prompt's other comparisons counts less.

    Args:
        comparisons: comparisons whose weights are numbers of judgements, as `comparisons_of` returns them.
        scores: scores by image id, as `bradley_terry` returns them.
        pull: weight of the predicted probability, in judgements; 0 changes nothing.
    """
    return [_pulled(each, _sigmoid(scores[each.image_a] - scores[each.image_b]), pull) for each in comparisons]


def reliabilities(judgements: Iterable[PairJudgement], *, gold: Mapping[int, GoldRecord] | None = None) -> dict[int, Reliability]:
    """Estimate each annotator's reliability from gold questions and from agreement with the other annotators on the same prompts.

    Args:
        judgements: judgements on any number of prompts; ties say nothing about their annotator.
        gold: answers to gold questions by annotator id. Their judgements should not be among `judgements`, or they count twice.

    Returns:
        Reliabilities by annotator id. `comparisons_of` takes their weights, by annotator id, as `reliability`.
    """
    tested, said = gold or {}, list(judgements)
    annotators = sorted({each.annotator for each in said} | tested.keys())
    asked = np.array([float(tested[who].asked) if who in tested else 0.0 for who in annotators])
    correct = np.array([float(tested[who].right) if who in tested else 0.0 for who in annotators])
    groups = _groups(said, {who: index for index, who in enumerate(annotators)})
    eta, evidence = _estimate(correct, asked)
    for _ in range(ROUNDS):
        faithful, weighed = correct.copy(), asked.copy()
        for group in groups:
            own_faithful, own_weighed = group.faithful(eta)
            faithful += own_faithful
            weighed += own_weighed
        before = eta
        eta, evidence = _estimate(faithful, weighed)
        if np.all(np.abs(eta - before) < TOLERANCE):
            break
    return {who: Reliability(right=float(eta[index]), evidence=float(evidence[index])) for index, who in enumerate(annotators)}


@dataclass(kw_only=True)
class _Group:
    """The judgements on all prompts with K compared pictures, as arrays over the G combinations of prompt and annotator that occur."""

    prompt: NDArray[np.int64]
    """(G,) index of the prompt."""
    annotator: NDArray[np.int64]
    """(G,) index of the annotator."""
    shares: NDArray[np.float64]
    """(G, K, K) how often the annotator preferred the picture of the matrix row to that of the column; a tie counts half."""
    decided: NDArray[np.float64]
    """(G, K, K) the same count without ties, where a soft judgement counts fully for the picture it prefers."""
    scores: NDArray[np.float64]
    """(G, K) scores fitted to the other annotators' judgements of the prompt, kept from the last call as the next starting point."""

    def faithful(self, eta: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The sums of r c and of c over the group, by annotator (module docstring)."""
        self.scores = _fit(self._wins_of_others(np.maximum(0.0, 2 * eta - 1)), self.scores)
        true = _sigmoids(self.scores)
        own = eta[self.annotator][:, None, None]
        tells = self.decided * np.abs(2 * true - 1)
        right = tells * own * true / (own * true + (1 - own) * (1 - true))
        return self._by_annotator(right, len(eta)), self._by_annotator(tells, len(eta))

    def _by_annotator(self, values: NDArray[np.float64], annotators: int) -> NDArray[np.float64]:
        return np.bincount(self.annotator, values.sum(axis=(1, 2)), minlength=annotators).astype(np.float64)

    def _wins_of_others(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        own = weight[self.annotator][:, None, None] * self.shares
        everybody = np.zeros((self.prompt.max() + 1, *own.shape[1:]))
        np.add.at(everybody, self.prompt, own)
        ties = PSEUDO_TIES / 2 * (1 - np.eye(own.shape[1]))
        return np.maximum(everybody[self.prompt] - own, 0.0) + ties


def _groups(said: Sequence[PairJudgement], place: Mapping[int, int]) -> list[_Group]:
    prompts: dict[int, list[PairJudgement]] = defaultdict(list)
    for each in said:
        prompts[each.prompt].append(each)
    by_size: dict[int, list[list[PairJudgement]]] = defaultdict(list)
    for together in prompts.values():
        by_size[len({image for each in together for image in (each.image_a, each.image_b)})].append(together)
    return [_group(size, prompts_of_size, place) for size, prompts_of_size in by_size.items()]


def _group(size: int, prompts: Sequence[Sequence[PairJudgement]], place: Mapping[int, int]) -> _Group:
    rows: dict[tuple[int, int], int] = {}
    entries: list[tuple[int, int, int, float]] = []
    for number, together in enumerate(prompts):
        images = {image: index for index, image in enumerate(sorted({i for each in together for i in (each.image_a, each.image_b)}))}
        for each in together:
            row = rows.setdefault((number, place[each.annotator]), len(rows))
            entries.append((row, images[each.image_a], images[each.image_b], each.target))
    shares, decided = np.zeros((len(rows), size, size)), np.zeros((len(rows), size, size))
    for row, a, b, target in entries:
        shares[row, a, b] += target
        shares[row, b, a] += 1 - target
        decided[row, a, b] += target > 0.5
        decided[row, b, a] += target < 0.5
    prompt, annotator = np.array(list(rows), dtype=np.int64).T
    return _Group(prompt=prompt, annotator=annotator, shares=shares, decided=decided, scores=np.zeros((len(rows), size)))


def _fit(wins: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fit Bradley-Terry scores (G, K) of many prompts at once to wins (G, K, K).

    `choix` fits one prompt at a time. This takes Newton steps with the bound p (1 - p) <= 1/4 in place of the curvature, so that a step never overshoots
    (Boehning and Lindsay 1988).
    """
    games = wins + wins.transpose(0, 2, 1)
    size = games.shape[1]
    bound = (games.sum(axis=2)[:, :, None] * np.eye(size) - games) / 4 + 1 / size
    inverse, scores = np.linalg.inv(bound), start
    for _ in range(STEPS):
        step = (inverse @ (wins - games * _sigmoids(scores)).sum(axis=2)[:, :, None])[:, :, 0]
        scores = scores + step
        if np.abs(step).max() < TOLERANCE:
            break
    return scores


def _estimate(faithful: NDArray[np.float64], weighed: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimate eta by annotator, and return the evidence it rests on."""
    return (PRIOR_RIGHT + faithful) / (PRIOR_RIGHT + PRIOR_WRONG + weighed), weighed


def _sigmoids(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability that the picture of the row beats that of the column, (G, K, K), from scores (G, K)."""
    return 0.5 * (1 + np.tanh((scores[:, :, None] - scores[:, None, :]) / 2))


def _pulled(said: Comparison, chance: float, pull: float) -> Comparison:
    total = said.weight + pull
    target = said.target if total == 0 else (said.weight * said.target + pull * chance) / total
    return Comparison(image_a=said.image_a, image_b=said.image_b, target=min(1.0, target), weight=said.weight)


def _sigmoid(x: float) -> float:
    return 0.5 * (1 + tanh(x / 2))
