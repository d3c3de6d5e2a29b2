"""Pairs that are chosen while people vote: what is asked when, and that it takes fewer votes than asking at random."""

import random
from collections import Counter
from math import exp

import numpy as np
import pytest

from d3po.annotation.adaptive import prior_belief, updated
from d3po.annotation.questions import AHEAD, ChosenPairs
from d3po.annotation.selection import random_pairs
from d3po.preferences.conversion import comparisons_of
from d3po.preferences.records import Asked, NewQuestion, Vote
from d3po.store import Store
from tests.unit.annotation.asking_less import Prompt, make_prompts
from tests.unit.preferences.votes import won
from tests.unit.store.stores import fill, human, vote

PAIRS = 6


def plan(groups: dict[int, list[int]], *, pairs: int = PAIRS, overlap: int = 1) -> ChosenPairs:
    return ChosenPairs(round=0, groups=groups, pairs_per_prompt=pairs, overlap=overlap, seed=3)


def as_asked(questions: list[NewQuestion], prompts: dict[int, int], *, start: int = 0) -> list[Asked]:
    return [
        Asked(
            id=start + i, prompt=prompts[q.images[0]], images=q.images, overlap=q.overlap, probability=q.probability, at_random=q.at_random
        )
        for i, q in enumerate(questions)
    ]


def test_two_questions_of_each_prompt_wait_and_answers_bring_the_next() -> None:
    groups = {1: [10, 11, 12, 13], 2: [20, 21, 22, 23]}
    prompts = {image: prompt for prompt, images in groups.items() for image in images}
    choosing = plan(groups, pairs=3)
    first = choosing.next([], [])
    asked = as_asked(first, prompts)
    assert Counter(each.prompt for each in asked) == {1: AHEAD, 2: AHEAD}
    assert choosing.next(asked, []) == []
    answered = won(*asked[0].images, question=asked[0].id, prompt=1)
    (more,) = choosing.next(asked, [answered])
    assert set(more.images) < set(groups[1])
    assert frozenset(more.images) not in {frozenset(each.images) for each in asked}
    assert more.priority > max(question.priority for question in first), "every prompt is asked about twice before any a third time"
    asked += as_asked([more], prompts, start=len(asked))
    votes = [won(*each.images, question=each.id, prompt=each.prompt) for each in asked]
    assert {prompts[question.images[0]] for question in choosing.next(asked, votes)} == {2}, "the first prompt has had its three"


def test_a_question_waits_until_all_that_are_asked_have_answered() -> None:
    choosing = plan({1: [10, 11, 12, 13]}, overlap=2)
    asked = as_asked(choosing.next([], []), dict.fromkeys(range(10, 14), 1))
    once = [won(*each.images, question=each.id, prompt=1) for each in asked]
    assert choosing.next(asked, once) == []
    assert len(choosing.next(asked, [*once, won(*asked[0].images, question=asked[0].id, prompt=1, annotator=2)])) == 1


def test_no_more_pairs_are_planned_than_there_are() -> None:
    assert plan({1: [1, 2, 3], 2: [4, 5, 6, 7]}, pairs=5).questions == 3 + 5


def test_the_same_votes_lead_to_the_same_questions_and_one_in_five_is_random() -> None:
    groups = {prompt: [10 * prompt + i for i in range(7)] for prompt in range(300)}
    choosing = plan(groups)
    first = choosing.next([], [])
    assert first == choosing.next([], [])
    assert np.mean([bool(question.at_random) for question in first]) == pytest.approx(0.2, abs=0.05)
    assert all(question.probability is not None and 0 < question.probability <= 1 for question in first)


def answered(prompt: Prompt, pair: tuple[int, int], chance: random.Random, question: int) -> Vote:
    a, b = pair
    wins = chance.random() < 1 / (1 + exp(prompt.scores[b] - prompt.scores[a]))
    return won(*((a, b) if wins else (b, a)), question=question)


def order_known(prompts: list[Prompt], *, adaptive: bool) -> float:
    """Share of the 21 pairs of a prompt that six votes tell the right way round; mean over prompts."""
    known: list[float] = []
    for number, prompt in enumerate(prompts):
        images, chance = list(prompt.scores), random.Random(number)
        choosing = ChosenPairs(round=number, groups={1: images}, pairs_per_prompt=PAIRS, overlap=1, seed=0)
        asked: list[Asked] = []
        votes: list[Vote] = []
        while adaptive and len(votes) < PAIRS:
            more = choosing.next(asked, votes)
            asked += as_asked(more, dict.fromkeys(images, 1), start=len(asked))
            votes.append(answered(prompt, (asked[len(votes)].images[0], asked[len(votes)].images[1]), chance, len(votes)))
        pairs = [each.images for each in asked] if adaptive else random_pairs(images, PAIRS, seed=f"{number}")
        votes += [answered(prompt, (a, b), chance, i) for i, (a, b) in enumerate(pairs) if i >= len(votes)]
        assert len(votes) == PAIRS
        known.append(prompt.accuracy(updated(prior_belief(images), comparisons_of(votes))))
    return float(np.mean(known))


def test_chosen_pairs_tell_more_of_the_order_than_as_many_random_ones() -> None:
    """About 1.5 points of the 21 pairs more over 500 prompts and 6, 10 or 14 votes, with two questions ahead and a fifth random."""
    prompts = make_prompts(250, right=0.5, seed=8)
    assert order_known(prompts, adaptive=True) > order_known(prompts, adaptive=False) + 0.005


def test_the_store_keeps_how_a_pair_came_to_be_asked(store: Store) -> None:
    groups = dict(enumerate(fill(store, images=4), start=1))
    prompts = {image.id: image.prompt_id for image in store.pictures.images(0)}
    choosing = plan({prompts[images[0]]: images for images in groups.values()}, pairs=3)
    ada = human(store, "ada")
    put: list[NewQuestion] = []
    while more := choosing.next(store.questions.asked(0), list(store.votes.current(round=0))):
        put += more
        store.questions.ask(more)
        (item,) = store.questions.lease(ada, 1)
        vote(store, item, ada)
    asked = store.questions.asked(0)
    assert [(each.images, each.probability, each.at_random) for each in asked] == [(q.images, q.probability, q.at_random) for q in put]
    assert Counter(each.prompt for each in asked) == dict.fromkeys(choosing.groups, 3)
    assert len({frozenset(each.images) for each in asked}) == len(asked)
