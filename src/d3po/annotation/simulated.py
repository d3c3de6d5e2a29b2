"""A simulated annotator, who compares pictures by a measured reward, with noise and with ties for small differences."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from d3po.preferences.records import Answer, NewQuestion

Scores = Sequence[float]
"""The rewards of one picture: a single number, or one for each criterion."""


@dataclass(frozen=True, kw_only=True)
class SimulatedAnnotator:
    """Answers pair questions from rewards. It prefers a to b with the Bradley-Terry probability sigmoid((score_a - score_b) / temperature).

    With several criteria it draws a preference for each, and prefers the picture that is better by at least one and worse by none (Pareto dominance);
    otherwise it answers with a tie. Its random draws depend on the seed and the two image ids alone, so asking again, in any order, gives the same answer.
    """

    temperature: float
    """Size of the noise, in units of the reward; 0 is without noise."""
    tie_band: float
    """Rewards that differ by no more than this, in units of the reward, count as equal."""
    seed: int

    def judge(self, image_a: int, image_b: int, scores: Mapping[int, Scores]) -> Answer:
        """Answer which of two images is better, given their scores by image id."""
        verdicts = {
            self._prefers_a(image_a, image_b, a - b, criterion)
            for criterion, (a, b) in enumerate(zip(scores[image_a], scores[image_b], strict=True))
        } - {None}
        if len(verdicts) != 1:
            return Answer(outcome="tie")
        return Answer(outcome="win", winner=image_a if verdicts == {True} else image_b)

    def judge_all(self, pairs: Sequence[tuple[int, int]], scores: Mapping[int, Scores], *, round: int) -> list[tuple[NewQuestion, Answer]]:
        """Make a question of the round of each pair, and answer it."""
        return [(NewQuestion(kind="pair", purpose="train", images=(a, b), round=round), self.judge(a, b, scores)) for a, b in pairs]

    def _prefers_a(self, image_a: int, image_b: int, difference: float, criterion: int) -> bool | None:
        """Whether a is preferred by one criterion; None where the two count as equal."""
        if abs(difference) <= self.tie_band:
            return None
        if self.temperature == 0:
            return difference > 0
        first, second = sorted((image_a, image_b))
        draw = random.Random("/".join(map(str, (self.seed, first, second, *([criterion] if criterion else []))))).random()
        chance_first = 1 / (1 + math.exp(-max(-700, min(700, (difference if image_a == first else -difference) / self.temperature))))
        return (draw < chance_first) == (image_a == first)
