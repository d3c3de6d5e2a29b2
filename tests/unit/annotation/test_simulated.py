"""The simulated annotator: noiseless, noisy, undecided, and the same whenever it is asked."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from d3po.annotation.simulated import SimulatedAnnotator

scores = st.floats(-1e3, 1e3)


def share(judge: SimulatedAnnotator, a: int, b: int, known: dict[int, float]) -> float:
    """The share of preference that a holds, by one criterion."""
    answer = judge.judge(a, b, by_criteria(known))
    return 0.5 if answer.outcome == "tie" else float(answer.winner == a)


def by_criteria(known: dict[int, float]) -> dict[int, tuple[float]]:
    return {image: (value,) for image, value in known.items()}


def annotator(*, temperature: float = 0.0, tie_band: float = 0.0, seed: int = 0) -> SimulatedAnnotator:
    return SimulatedAnnotator(temperature=temperature, tie_band=tie_band, seed=seed)


@given(a=scores, b=scores)
def test_judge_without_noise_prefers_the_higher_score(a: float, b: float) -> None:
    target = share(annotator(), 1, 2, {1: a, 2: b})
    assert target == (0.5 if a == b else float(a > b))


@given(a=scores, b=scores, temperature=st.floats(0, 100), band=st.floats(0, 10), seed=st.integers(0, 99))
def test_asking_the_other_way_round_gives_the_same_answer(a: float, b: float, temperature: float, band: float, seed: int) -> None:
    judge = annotator(temperature=temperature, tie_band=band, seed=seed)
    known = {1: a, 2: b}
    assert share(judge, 1, 2, known) == 1 - share(judge, 2, 1, known)
    assert judge.judge(1, 2, by_criteria(known)) == judge.judge(1, 2, by_criteria(known))


@given(a=scores, b=scores, band=st.floats(0, 10), temperature=st.floats(0, 10))
def test_differences_within_the_band_are_ties(a: float, b: float, band: float, temperature: float) -> None:
    target = share(annotator(tie_band=band, temperature=temperature), 1, 2, {1: a, 2: b})
    assert (target == 0.5) == (abs(a - b) <= band)


@pytest.mark.parametrize(("difference", "temperature"), [(1.0, 1.0), (-1.0, 1.0), (0.5, 2.0), (3.0, 1.5)])
def test_noisy_judge_follows_bradley_terry(difference: float, temperature: float) -> None:
    """Over 4000 pairs the share of wins lies within 4 standard errors of sigmoid(difference / temperature)."""
    judge, pairs = annotator(temperature=temperature), 4000
    wins = sum(share(judge, 2 * i, 2 * i + 1, {2 * i: difference, 2 * i + 1: 0.0}) for i in range(pairs)) / pairs
    chance = 1 / (1 + math.exp(-difference / temperature))
    assert abs(wins - chance) < 4 * math.sqrt(chance * (1 - chance) / pairs)


def test_answers_do_not_depend_on_what_was_asked_before() -> None:
    judge, known = annotator(temperature=1.0), {i: 0.1 * i for i in range(10)}
    pairs = [(a, b) for a in range(10) for b in range(a)]
    forward = {question.images: answer.winner for question, answer in judge.judge_all(pairs, by_criteria(known), round=0)}
    backward = {question.images: answer.winner for question, answer in judge.judge_all(pairs[::-1], by_criteria(known), round=0)}
    assert forward == backward
    assert {True, False} == {winner == images[0] for images, winner in forward.items()}


def test_another_seed_is_another_judge() -> None:
    pairs, known = [(2 * i, 2 * i + 1) for i in range(50)], dict.fromkeys(range(100), 0.0) | {2 * i: 0.01 for i in range(50)}
    first, second = (annotator(temperature=1.0, seed=seed).judge_all(pairs, by_criteria(known), round=0) for seed in (0, 1))
    assert first != second


@given(difference=st.sampled_from([1e-300, 1e9, -1e9, 1e300]), temperature=st.sampled_from([1e-300, 1e-9, 1.0]))
def test_extreme_differences_do_not_overflow(difference: float, temperature: float) -> None:
    assume(difference != 0)
    target = share(annotator(temperature=temperature), 1, 2, {1: difference, 2: 0.0})
    assert target in (0.0, 1.0)
    if abs(difference / temperature) > 700:
        assert target == float(difference > 0)


def test_a_judgement_is_a_training_question_of_its_round_with_its_answer() -> None:
    ((question, answer),) = annotator().judge_all([(5, 3)], {3: (0.0,), 5: (1.0,)}, round=2)
    assert (question.kind, question.purpose, question.images, question.round) == ("pair", "train", (5, 3), 2)
    assert (answer.outcome, answer.winner) == ("win", 5)


@pytest.mark.parametrize(
    ("a", "b", "preferred"),
    [
        ((2.0, 1.0), (1.0, 1.0), 1),
        ((2.0, 1.0), (1.0, 0.0), 1),
        ((1.0, 1.0), (1.0, 1.5), 2),
        ((2.0, 0.0), (1.0, 1.0), None),
        ((1.0, 1.0), (1.0, 1.0), None),
        ((0.0, 0.0, 5.0), (0.0, 0.0, 6.0), 2),
        ((0.0, 9.0, 5.0), (9.0, 9.0, 4.0), None),
    ],
)
def test_of_several_criteria_only_dominance_is_preferred(a: tuple[float, ...], b: tuple[float, ...], preferred: int | None) -> None:
    assert annotator().judge(1, 2, {1: a, 2: b}).winner == preferred


def test_a_difference_within_the_band_does_not_stand_in_the_way_of_dominance() -> None:
    """Worse by 0.1, which is nothing to this judge, and better by 1."""
    known = {1: (1.0, 0.9), 2: (0.0, 1.0)}
    assert annotator(tie_band=0.2).judge(1, 2, known).winner == 1
    assert annotator(tie_band=0.0).judge(1, 2, known).outcome == "tie"


def test_criteria_err_independently_of_each_other() -> None:
    """At no difference each criterion is a coin: both agree half of the time, within 4 standard errors of 4000 pairs."""
    judge, pairs = annotator(temperature=1.0), 4000
    known = {i: (1e-9 * i, 1e-9 * i) for i in range(2 * pairs)}
    decided = sum(judge.judge(2 * i, 2 * i + 1, known).outcome == "win" for i in range(pairs)) / pairs
    assert abs(decided - 0.5) < 4 * math.sqrt(0.25 / pairs)
