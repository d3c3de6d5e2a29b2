"""Which pairs are asked about."""

from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3po.annotation.selection import all_pairs, random_pairs

images = st.lists(st.integers(), unique=True, max_size=8)


def test_all_pairs_of_three_in_order() -> None:
    assert all_pairs(["a", "b", "c"]) == [("a", "b"), ("a", "c"), ("b", "c")]


@given(images)
def test_every_two_images_meet_once(ids: list[int]) -> None:
    pairs = all_pairs(ids)
    assert len(pairs) == comb(len(ids), 2) == len({frozenset(pair) for pair in pairs})
    assert all(a != b for a, b in pairs)


@given(ids=images, count=st.integers(0, 40), seed=st.text(max_size=5))
def test_random_pairs_are_distinct_and_in_order(ids: list[int], count: int, seed: str) -> None:
    chosen, everything = random_pairs(ids, count, seed=seed), all_pairs(ids)
    assert len(chosen) == min(count, len(everything))
    places = [everything.index(pair) for pair in chosen]
    assert places == sorted(set(places))


@given(ids=images, count=st.integers(0, 40), seed=st.text(max_size=5))
def test_random_pairs_are_a_function_of_the_seed(ids: list[int], count: int, seed: str) -> None:
    assert random_pairs(ids, count, seed=seed) == random_pairs(ids, count, seed=seed)


def test_other_seeds_choose_other_pairs_and_every_pair_in_time() -> None:
    chosen = [random_pairs(range(5), 2, seed=str(seed)) for seed in range(200)]
    assert {pair for pairs in chosen for pair in pairs} == set(all_pairs(range(5)))


@pytest.mark.parametrize("count", [10, 11, 1000])
def test_asking_for_more_than_there_are_gives_all(count: int) -> None:
    assert random_pairs(range(5), count, seed="s") == all_pairs(range(5))
