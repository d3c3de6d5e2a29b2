"""From votes to comparisons: each answer says what it says and no more, by image id, in whatever order it comes."""

from collections.abc import Callable
from dataclasses import replace
from math import comb
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3po.preferences.conversion import comparisons_of, pair_judgements
from d3po.preferences.records import Answer, Comparison, Outcome, Vote
from tests.unit.preferences.votes import best_worst, marked, ranked, scored, thumb, tied, vote, won

IMAGES = st.lists(st.integers(1, 10**6), unique=True, min_size=2, max_size=7)


def targets(*votes: Vote) -> dict[tuple[int, int], float]:
    return {(each.image_a, each.image_b): each.target for each in comparisons_of(votes)}


def said(a: int, b: int, target: float, weight: float = 1.0) -> Comparison:
    return Comparison(image_a=a, image_b=b, target=target, weight=weight)


SAYINGS: dict[str, Callable[..., Vote]] = {
    "win": lambda images, **who: won(images[0], images[1], **who),
    "tie": lambda images, **who: tied(*images, **who),
    "rank": lambda images, **who: ranked({image: place for place, image in enumerate(images, 1)}, **who),
    "rank with ties": lambda images, **who: ranked({image: 1 + place // 2 for place, image in enumerate(images)}, **who),
    "best and worst": lambda images, **who: best_worst(images, images[0], images[1], **who),
    "marks": lambda images, **who: marked(images, images[1:3], **who),
    "share": lambda images, **who: vote("pair", images[:2], Answer(outcome="share", values={images[0]: 0.25, images[1]: 0.75}), **who),
    "skip": lambda images, **who: vote("pair", images[:2], Answer(outcome="skip"), **who),
    "both bad": lambda images, **who: vote("pair", images[:2], Answer(outcome="both_bad"), **who),
    "flag": lambda images, **who: vote("pair", images[:2], Answer(outcome="flag", reason="not a picture"), **who),
    "up": lambda images, **who: thumb(images[0], True, **who),
    "down": lambda images, **who: thumb(images[1], False, **who),
    "4": lambda images, **who: scored(images[0], 4, **who),
    "2": lambda images, **who: scored(images[1], 2, **who),
}
Plan = tuple[str, int, int, list[int]]
PLANS = st.lists(
    st.tuples(st.sampled_from(sorted(SAYINGS)), st.integers(1, 2), st.integers(1, 3), st.lists(st.integers(0, 5), unique=True, min_size=2)),
    max_size=12,
)
"""What is said, of which prompt, by whom, of which of its pictures. Votes are made from it in the tests: checking types draws random numbers."""


def votes_of(plans: list[Plan]) -> list[Vote]:
    """Votes of all kinds by three annotators on two prompts; each prompt has images of its own."""
    return [
        SAYINGS[saying](tuple(10 * prompt + image for image in images), prompt=prompt, annotator=annotator, sequence=number)
        for number, (saying, prompt, annotator, images) in enumerate(plans)
    ]


def mirrored(each: Vote, top: int) -> Vote:
    """The same vote about pictures whose ids run the other way."""
    answer = each.answer
    turned = replace(
        answer,
        winner=None if answer.winner is None else top - answer.winner,
        values={top - image: value for image, value in answer.values.items()},
    )
    return replace(each, images=tuple(sorted(top - image for image in each.images)), answer=turned)


def test_win_is_one_comparison_by_id_however_it_was_shown() -> None:
    assert comparisons_of([won(7, 3, shown=(7, 3))]) == comparisons_of([won(7, 3, shown=(3, 7))]) == [said(3, 7, 0.0)]


def test_tie_is_kept_as_a_half() -> None:
    assert targets(tied(1, 2)) == {(1, 2): 0.5}
    assert targets(tied(1, 2, 3)) == {(1, 2): 0.5, (1, 3): 0.5, (2, 3): 0.5}


def test_ranking_gives_every_pair_and_equal_places_tie() -> None:
    assert targets(ranked({5: 2, 6: 1, 7: 2})) == {(5, 6): 0.0, (5, 7): 0.5, (6, 7): 1.0}


def test_picture_without_a_place_is_left_out_of_a_ranking() -> None:
    assert targets(vote("rank", (1, 2, 3), Answer(outcome="rank", values={1: 1.0, 3: 2.0}))) == {(1, 3): 1.0}


def test_best_and_worst_of_four_say_nothing_of_the_two_between() -> None:
    assert targets(best_worst((1, 2, 3, 4), best=3, worst=1)) == {(1, 2): 0, (1, 3): 0, (1, 4): 0, (2, 3): 0, (3, 4): 1}


def test_marks_say_that_unmarked_beats_marked() -> None:
    assert targets(marked((1, 2, 3, 4), bad=(2, 4))) == {(1, 2): 1, (1, 4): 1, (2, 3): 0, (3, 4): 1}


@pytest.mark.parametrize("bad", [(), (1, 2, 3)])
def test_all_or_none_marked_says_nothing(bad: tuple[int, ...]) -> None:
    assert targets(marked((1, 2, 3), bad)) == {}


def test_thumbs_are_paired_within_annotator_and_prompt() -> None:
    assert targets(thumb(1, True), thumb(2, False), thumb(3, True)) == {(1, 2): 1, (2, 3): 0}
    assert targets(thumb(1, True), thumb(2, False, annotator=2)) == {}
    assert targets(thumb(1, True), thumb(2, False, prompt=2)) == {}
    assert targets(thumb(1, True), thumb(2, False, round=1)) == {}
    assert targets(thumb(1, True), thumb(2, False, purpose="blind")) == {}


def test_scores_are_paired_and_equal_ones_tie() -> None:
    assert targets(scored(1, 5), scored(2, 3), scored(3, 3)) == {(1, 2): 1, (1, 3): 1, (2, 3): 0.5}
    assert targets(scored(1, 5), scored(2, 3, annotator=2)) == {}


def test_share_is_taken_as_given() -> None:
    assert targets(vote("pair", (9, 4), Answer(outcome="share", values={9: 0.8, 4: 0.2}))) == {(4, 9): 0.2}


@pytest.mark.parametrize("outcome", ["both_bad", "skip", "flag"])
def test_refusals_say_nothing(outcome: Outcome) -> None:
    assert targets(vote("pair", (1, 2), Answer(outcome=outcome))) == {}


def test_several_annotators_make_one_soft_comparison() -> None:
    votes = [won(1, 2, annotator=1), won(1, 2, annotator=2), won(2, 1, annotator=3), tied(1, 2, annotator=4)]
    assert comparisons_of(votes) == [said(1, 2, 2.5 / 4, weight=4.0)]


def test_reliability_weighs_judgements_and_zero_leaves_them_out() -> None:
    votes = [won(1, 2, annotator=1), won(2, 1, annotator=2), won(1, 3, annotator=2)]
    assert comparisons_of(votes, reliability={1: 3.0}) == [said(1, 2, 0.75, weight=4.0), said(1, 3, 1.0)]
    assert comparisons_of(votes, reliability={2: 0.0}) == [said(1, 2, 1.0)]


def test_judgements_keep_the_annotators_apart() -> None:
    judged = pair_judgements([won(2, 1, annotator=5), won(1, 2, annotator=4)])
    assert [(each.annotator, each.target) for each in judged] == [(4, 1.0), (5, 0.0)]


def test_order_is_by_prompt_then_images() -> None:
    pairs = [(each.image_a, each.image_b) for each in comparisons_of([won(1, 2, prompt=2), won(9, 8, prompt=1), won(7, 9, prompt=1)])]
    assert pairs == [(7, 9), (8, 9), (1, 2)]


@given(images=IMAGES, data=st.data())
def test_a_ranking_of_k_gives_all_pairs(images: list[int], data: st.DataObject) -> None:
    places = {image: float(data.draw(st.integers(1, len(images)))) for image in images}
    judged = targets(ranked(places))
    assert len(judged) == comb(len(images), 2)
    assert all(target == (places[a] < places[b]) + 0.5 * (places[a] == places[b]) for (a, b), target in judged.items())


@given(plans=PLANS, random=st.randoms(use_true_random=False))
def test_order_of_votes_plays_no_part(plans: list[Plan], random: Random) -> None:
    votes, trust = votes_of(plans), {1: 0.3, 2: 1.7}
    shuffled = random.sample(votes, len(votes))
    assert comparisons_of(shuffled, reliability=trust) == comparisons_of(votes, reliability=trust)


@given(plans=PLANS)
def test_turning_the_ids_round_turns_the_targets(plans: list[Plan]) -> None:
    votes = votes_of(plans)
    forth, back = targets(*votes), targets(*[mirrored(each, 1000) for each in votes])
    assert back.keys() == {(1000 - b, 1000 - a) for a, b in forth}
    assert all(back[1000 - b, 1000 - a] == pytest.approx(1 - target) for (a, b), target in forth.items())


@given(plans=PLANS)
def test_nothing_is_invented(plans: list[Plan]) -> None:
    votes = votes_of(plans)
    speaking = [each for each in votes if each.answer.outcome not in ("skip", "both_bad", "flag")]
    judged = comparisons_of(votes)
    assert judged == comparisons_of(speaking)
    asked = {image for each in speaking for image in each.images}
    assert all({each.image_a, each.image_b} <= asked and each.image_a // 10 == each.image_b // 10 for each in judged)
    assert all(each.image_a < each.image_b for each in judged)
    assert len({(each.image_a, each.image_b) for each in judged}) == len(judged)
    assert sum(each.weight for each in judged) == len(pair_judgements(votes))


@given(plans=PLANS, scale=st.floats(0.01, 100))
def test_trusting_everybody_more_changes_weights_only(plans: list[Plan], scale: float) -> None:
    votes = votes_of(plans)
    plain, scaled = comparisons_of(votes), comparisons_of(votes, reliability=dict.fromkeys((1, 2, 3), scale))
    assert [each.target for each in scaled] == pytest.approx([each.target for each in plain])
    assert [each.weight for each in scaled] == pytest.approx([scale * each.weight for each in plain])
