"""A simulated annotator: a measured reward, with the noise and the indifference of a person."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from d3po.preferences.records import Answer, NewQuestion


@dataclass(frozen=True, kw_only=True)
class SimulatedAnnotator:
    """Prefers a over b with the Bradley-Terry probability sigmoid((score_a - score_b) / temperature).

    Each answer is a function of the seed and the two image ids alone, so asking again, in any order, gives the same answer.
    """

    temperature: float
    """In units of the reward; 0 is a judge without noise."""
    tie_band: float
    """Differences up to this much, in units of the reward, are called a tie."""
    seed: int

    def judge(self, image_a: int, image_b: int, scores: Mapping[int, float]) -> Answer:
        """The verdict on two images, given their scores by image id."""
        target = self._target(image_a, image_b, scores[image_a] - scores[image_b])
        return Answer(outcome="tie") if target == 0.5 else Answer(outcome="win", winner=image_a if target == 1 else image_b)

    def judge_all(self, pairs: Sequence[tuple[int, int]], scores: Mapping[int, float], *, round: int) -> list[tuple[NewQuestion, Answer]]:
        """Each pair as a question of the round, with the verdict."""
        return [(NewQuestion(kind="pair", purpose="train", images=(a, b), round=round), self.judge(a, b, scores)) for a, b in pairs]

    def _target(self, image_a: int, image_b: int, difference: float) -> float:
        if abs(difference) <= self.tie_band:
            return 0.5
        if self.temperature == 0:
            return 1.0 if difference > 0 else 0.0
        first, second = sorted((image_a, image_b))
        draw = random.Random(f"{self.seed}/{first}/{second}").random()
        chance_first = 1 / (1 + math.exp(-max(-700, min(700, (difference if image_a == first else -difference) / self.temperature))))
        first_wins = draw < chance_first
        return 1.0 if first_wins == (image_a == first) else 0.0
