"""The simulated annotator: noiseless, noisy, undecided, and the same whenever it is asked."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from d3po.feedback.annotator import SimulatedAnnotator

scores = st.floats(-1e3, 1e3)


def annotator(*, temperature: float = 0.0, tie_band: float = 0.0, seed: int = 0) -> SimulatedAnnotator:
    return SimulatedAnnotator(name="ruler", temperature=temperature, tie_band=tie_band, seed=seed)


@given(a=scores, b=scores)
def test_judge_without_noise_prefers_the_higher_score(a: float, b: float) -> None:
    target = annotator().compare(1, 2, {1: a, 2: b}).target
    assert target == (0.5 if a == b else float(a > b))


@given(a=scores, b=scores, temperature=st.floats(0, 100), band=st.floats(0, 10), seed=st.integers(0, 99))
def test_asking_the_other_way_round_gives_the_same_answer(a: float, b: float, temperature: float, band: float, seed: int) -> None:
    judge = annotator(temperature=temperature, tie_band=band, seed=seed)
    known = {1: a, 2: b}
    assert judge.compare(1, 2, known).target == 1 - judge.compare(2, 1, known).target
    assert judge.compare(1, 2, known) == judge.compare(1, 2, known)


@given(a=scores, b=scores, band=st.floats(0, 10), temperature=st.floats(0, 10))
def test_differences_within_the_band_are_ties(a: float, b: float, band: float, temperature: float) -> None:
    target = annotator(tie_band=band, temperature=temperature).compare(1, 2, {1: a, 2: b}).target
    assert (target == 0.5) == (abs(a - b) <= band)


@pytest.mark.parametrize(("difference", "temperature"), [(1.0, 1.0), (-1.0, 1.0), (0.5, 2.0), (3.0, 1.5)])
def test_noisy_judge_follows_bradley_terry(difference: float, temperature: float) -> None:
    """Over 4000 pairs the share of wins lies within 4 standard errors of sigmoid(difference / temperature)."""
    judge, pairs = annotator(temperature=temperature), 4000
    wins = sum(judge.compare(2 * i, 2 * i + 1, {2 * i: difference, 2 * i + 1: 0.0}).target for i in range(pairs)) / pairs
    chance = 1 / (1 + math.exp(-difference / temperature))
    assert abs(wins - chance) < 4 * math.sqrt(chance * (1 - chance) / pairs)


def test_answers_do_not_depend_on_what_was_asked_before() -> None:
    judge, known = annotator(temperature=1.0), {i: 0.1 * i for i in range(10)}
    pairs = [(a, b) for a in range(10) for b in range(a)]
    forward = {(c.image_a, c.image_b): c.target for c in judge.compare_all(pairs, known)}
    backward = {(c.image_a, c.image_b): c.target for c in judge.compare_all(pairs[::-1], known)}
    assert forward == backward
    assert {0.0, 1.0} == set(forward.values())


def test_another_seed_is_another_judge() -> None:
    pairs, known = [(2 * i, 2 * i + 1) for i in range(50)], dict.fromkeys(range(100), 0.0) | {2 * i: 0.01 for i in range(50)}
    assert annotator(temperature=1.0, seed=0).compare_all(pairs, known) != annotator(temperature=1.0, seed=1).compare_all(pairs, known)


@given(difference=st.sampled_from([1e-300, 1e9, -1e9, 1e300]), temperature=st.sampled_from([1e-300, 1e-9, 1.0]))
def test_extreme_differences_do_not_overflow(difference: float, temperature: float) -> None:
    assume(difference != 0)
    target = annotator(temperature=temperature).compare(1, 2, {1: difference, 2: 0.0}).target
    assert target in (0.0, 1.0)
    if abs(difference / temperature) > 700:
        assert target == float(difference > 0)


def test_comparison_names_the_judge_and_the_images() -> None:
    comparison = annotator().compare(5, 3, {3: 0.0, 5: 1.0})
    assert (comparison.image_a, comparison.image_b, comparison.target, comparison.annotator) == (5, 3, 1.0, "ruler")
