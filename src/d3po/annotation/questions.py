"""The questions of a round: all of them at once, or pairs that are chosen one after the other given the votes so far.

Chosen pairs are D-optimal pairs (`annotation.adaptive`) and a share of random ones.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from d3po.annotation.adaptive import next_pairs, prior_belief, updated
from d3po.annotation.selection import number_of_pairs, random_pairs
from d3po.options import QuestionKind
from d3po.preferences.conversion import comparisons_of
from d3po.preferences.records import Asked, NewQuestion, Vote

AHEAD = 2
"""How many questions of each prompt wait for answers at a time. With more, pairs are chosen on fewer votes; with fewer, people wait for the choice."""
RANDOM_SHARE = 0.2
"""The probability that a pair is drawn at random instead of chosen."""


def round_questions(
    groups: Mapping[int, Sequence[int]], *, kind: QuestionKind, pairs_per_prompt: int, overlap: int, round: int, seed: int
) -> list[NewQuestion]:
    """Make all questions of a round. Their priorities are such that every prompt is asked about once before any is asked about twice.

    Args:
        groups: image ids by prompt id.
        kind: the kind of question, which is about a pair, about one image, or about all images of a prompt.
        pairs_per_prompt: how many pairs are drawn if `kind` is "pair"; 0 takes all pairs.
        overlap: how many people answer each question.
        round: the round's number.
        seed: the run's seed; the same seed and round give the same questions.
    """
    order = random.Random(f"{seed}/questions/{round}")
    return [
        NewQuestion(kind=kind, purpose="train", images=images, round=round, overlap=overlap, priority=turn + order.random())
        for prompt, ids in groups.items()
        for turn, images in enumerate(_asked_together(ids, kind, pairs_per_prompt, f"{round}/{prompt}", seed))
    ]


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
        return sum(number_of_pairs(len(images), self.pairs_per_prompt) for images in self.groups.values())

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


def _asked_together(ids: Sequence[int], kind: QuestionKind, pairs_per_prompt: int, place: str, seed: int) -> Iterator[tuple[int, ...]]:
    """Yield the images of each question about one prompt, in the order in which the questions are asked."""
    if kind == "pair":
        pairs = random_pairs(ids, number_of_pairs(len(ids), pairs_per_prompt), seed=f"{seed}/pairs/{place}")
        yield from random.Random(f"{seed}/pair order/{place}").sample(pairs, len(pairs))
    elif kind in ("thumb", "score"):
        yield from ((image,) for image in ids)
    else:
        yield tuple(ids)


def _pair(question: Asked) -> tuple[int, int]:
    a, b = question.images
    return a, b
