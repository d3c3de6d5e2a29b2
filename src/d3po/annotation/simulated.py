"""A simulated annotator: a measured reward, with the noise and the indifference of a person."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from d3po.preferences.records import Answer, NewQuestion

Scores = Sequence[float]
"""What a judge measured of one picture: one number, or one a criterion."""


@dataclass(frozen=True, kw_only=True)
class SimulatedAnnotator:
    """Prefers a over b, by one criterion, with the Bradley-Terry probability sigmoid((score_a - score_b) / temperature).

    With several criteria it prefers what Pareto dominates: better by one, worse by none; everything else is a tie.
    Each answer is a function of the seed and the two image ids alone, so asking again, in any order, gives the same answer.
    """

    temperature: float
    """In units of the reward; 0 is a judge without noise."""
    tie_band: float
    """Differences up to this much, in units of the reward, are called equal."""
    seed: int

    def judge(self, image_a: int, image_b: int, scores: Mapping[int, Scores]) -> Answer:
        """The verdict on two images, given their scores by image id."""
        verdicts = {
            self._prefers_a(image_a, image_b, a - b, criterion)
            for criterion, (a, b) in enumerate(zip(scores[image_a], scores[image_b], strict=True))
        } - {None}
        if len(verdicts) != 1:
            return Answer(outcome="tie")
        return Answer(outcome="win", winner=image_a if verdicts == {True} else image_b)

    def judge_all(self, pairs: Sequence[tuple[int, int]], scores: Mapping[int, Scores], *, round: int) -> list[tuple[NewQuestion, Answer]]:
        """Each pair as a question of the round, with the verdict."""
        return [(NewQuestion(kind="pair", purpose="train", images=(a, b), round=round), self.judge(a, b, scores)) for a, b in pairs]

    def _prefers_a(self, image_a: int, image_b: int, difference: float, criterion: int) -> bool | None:
        """Whether a is better by one criterion; None where they are equal."""
        if abs(difference) <= self.tie_band:
            return None
        if self.temperature == 0:
            return difference > 0
        first, second = sorted((image_a, image_b))
        draw = random.Random("/".join(map(str, (self.seed, first, second, *([criterion] if criterion else []))))).random()
        chance_first = 1 / (1 + math.exp(-max(-700, min(700, (difference if image_a == first else -difference) / self.temperature))))
        return (draw < chance_first) == (image_a == first)
