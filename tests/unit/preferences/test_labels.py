"""From votes to labels of single images: order, ties and weights are kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3po.preferences.labels import labels_of
from d3po.preferences.records import Answer, Outcome, Vote
from tests.unit.preferences.votes import best_worst, marked, ranked, scored, thumb, tied, vote, won

PLACES = st.dictionaries(st.integers(1, 99), st.integers(1, 4), min_size=2, max_size=7)


def values(*votes: Vote) -> dict[int, float]:
    return {label.image: label.value for label in labels_of(votes)}


def test_single_answers_are_taken_as_they_were_said() -> None:
    assert values(thumb(1, True), thumb(2, False)) == {1: 1.0, 2: -1.0}
    assert values(scored(1, 5), scored(2, 3), scored(3, 2)) == {1: 1.0, 2: 0.0, 3: -0.5}
    assert values(marked((1, 2, 3), (2,))) == {1: 1.0, 2: -1.0, 3: 1.0}
    assert values(vote("pair", (1, 2), Answer(outcome="both_bad"))) == {1: -1.0, 2: -1.0}


def test_what_was_said_in_pairs_becomes_a_share_of_preference() -> None:
    assert values(won(1, 2)) == {1: 1.0, 2: -1.0}
    assert values(tied(1, 2)) == {1: 0.0, 2: 0.0}
    assert values(won(1, 2), won(2, 3)) == {1: 1.0, 2: 0.0, 3: -1.0}
    assert values(ranked({1: 1, 2: 2, 3: 3})) == {1: 1.0, 2: 0.0, 3: -1.0}


def test_best_and_worst_leave_the_others_in_the_middle() -> None:
    assert values(best_worst((1, 2, 3, 4), 1, 4)) == {1: 1.0, 2: 0.0, 3: 0.0, 4: -1.0}


@pytest.mark.parametrize("outcome", ["skip", "flag"])
def test_who_says_nothing_gives_no_label(outcome: Outcome) -> None:
    assert labels_of([vote("pair", (1, 2), Answer(outcome=outcome))]) == []


def test_annotators_count_by_their_reliability_and_their_weights_add_up() -> None:
    (label,) = labels_of(
        [thumb(1, True, annotator=1), thumb(1, False, annotator=2), thumb(1, False, annotator=3)], reliability={1: 3.0, 3: 0.0}
    )
    assert label.value == pytest.approx((3 - 1) / 4)
    assert label.weight == 4.0


def test_somebody_who_answers_twice_is_one_annotator() -> None:
    (label,) = labels_of([thumb(1, True), thumb(1, True), thumb(1, False, annotator=2)])
    assert label.weight == 2.0
    assert label.value == 0.0


@given(PLACES)
def test_a_ranking_keeps_its_order_and_its_ties(places: dict[int, int]) -> None:
    said = values(ranked(places))
    for a, first in places.items():
        for b, second in places.items():
            assert (said[a] > said[b]) == (first < second)
            assert (said[a] == said[b]) == (first == second)
    assert sum(said.values()) == pytest.approx(0, abs=1e-9)


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(5, 8), st.booleans()), min_size=1, max_size=10), st.randoms())
def test_the_order_of_votes_does_not_matter(pairs: list[tuple[int, int, bool]], random) -> None:
    votes = [won(a, b) if first else won(b, a) for a, b, first in pairs]
    mixed = votes.copy()
    random.shuffle(mixed)
    assert labels_of(votes) == labels_of(mixed)
