"""Which pairs of a round to ask people next, given the votes so far: D-optimal pairs, and a share of random ones (`annotation.adaptive`)."""

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import comb

from d3po.annotation.adaptive import next_pairs, prior_belief, updated
from d3po.preferences.conversion import comparisons_of
from d3po.preferences.records import Asked, NewQuestion, Vote

AHEAD = 2
"""How many questions of each prompt wait for answers at a time. With more, pairs are chosen on fewer votes; with fewer, people wait for the choice."""
RANDOM_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class ChosenPairs:
    """A round whose pairs are chosen while the votes come in."""

    round: int
    groups: Mapping[int, Sequence[int]]
    """Image ids by prompt id."""
    pairs_per_prompt: int
    overlap: int
    seed: int
    """The run's seed; the same votes lead to the same questions."""

    @property
    def questions(self) -> int:
        """How many questions there will be."""
        return sum(min(self.pairs_per_prompt, comb(len(images), 2)) for images in self.groups.values())

    def next(self, asked: Collection[Asked], votes: Collection[Vote]) -> list[NewQuestion]:
        """Choose the questions to add now, so that `AHEAD` questions of each prompt wait for answers. Prompts with all their pairs asked get none.

        Args:
            asked: the round's questions so far.
            votes: the current votes on these questions.
        """
        answers = Counter(vote.question for vote in votes)
        put: dict[int, list[Asked]] = defaultdict(list)
        said: dict[int, list[Vote]] = defaultdict(list)
        for question in asked:
            put[question.prompt].append(question)
        for vote in votes:
            said[vote.prompt].append(vote)
        return [question for prompt in self.groups for question in self._of_prompt(prompt, put[prompt], said[prompt], answers)]

    def _of_prompt(self, prompt: int, put: list[Asked], said: list[Vote], answers: Mapping[int, int]) -> list[NewQuestion]:
        waiting = [_pair(each) for each in put if answers.get(each.id, 0) < each.overlap]
        count = min(AHEAD - len(waiting), self.pairs_per_prompt - len(put))
        if count <= 0:
            return []
        belief = updated(prior_belief(self.groups[prompt]), comparisons_of(said))
        whose = f"{self.seed}/chosen/{self.round}/{prompt}/{len(put)}"
        asked = [_pair(each) for each in put]
        order = random.Random(whose)
        return [
            NewQuestion(
                kind="pair", purpose="train", images=(pair.image_a, pair.image_b), round=self.round, overlap=self.overlap,
                priority=len(put) + place + order.random(), probability=pair.probability, at_random=pair.at_random,
            )
            for place, pair in enumerate(next_pairs(belief, count, seed=whose, asked=asked, waiting=waiting, random_share=RANDOM_SHARE))
        ]  # fmt: skip


def _pair(question: Asked) -> tuple[int, int]:
    a, b = question.images
    return a, b
