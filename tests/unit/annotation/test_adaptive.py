"""Which pairs are asked next: closed forms, what must hold of any choice, and simulated people who are asked less."""

from collections import Counter
from itertools import combinations
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3po.annotation.adaptive import next_pairs, prior_belief, proxy_correlation, updated
from d3po.preferences.records import Comparison
from tests.unit.annotation.asking_less import SPREAD, accuracy_by_votes, make_prompts, votes_needed

IMAGES = (11, 12, 13, 14)


def said(a: int, b: int, target: float = 1.0, weight: float = 1.0) -> Comparison:
    return Comparison(image_a=a, image_b=b, target=target, weight=weight)


def test_prior_without_a_proxy_knows_the_spread_alone() -> None:
    belief = prior_belief(IMAGES, spread=1.5)
    assert belief.mean.tolist() == [0, 0, 0, 0]
    assert np.array_equal(belief.covariance, 2.25 * np.eye(4))


def test_proxy_moves_the_mean_and_narrows_the_prior_by_its_correlation() -> None:
    belief = prior_belief((1, 2), proxy={1: 700.0, 2: 100.0}, correlation=0.6, spread=1.5)
    assert belief.mean == pytest.approx([0.9, -0.9])
    assert belief.covariance == pytest.approx(2.25 * 0.64 * np.eye(2))


def test_proxy_without_correlation_changes_nothing() -> None:
    plain, with_proxy = prior_belief(IMAGES), prior_belief(IMAGES, proxy=dict.fromkeys(IMAGES, 1.0) | {11: 9.0}, correlation=0.0)
    assert np.array_equal(plain.mean, with_proxy.mean)
    assert np.array_equal(plain.covariance, with_proxy.covariance)


def test_one_win_by_hand() -> None:
    # With mean (x, -x), the slope is (1 - p) - x / 4 = 0 at p = sigmoid(2 x).
    belief = updated(prior_belief((1, 2), spread=2.0), [said(1, 2)])
    x = float(belief.mean[0])
    assert belief.mean[1] == pytest.approx(-x)
    assert 1 / (1 + np.exp(2 * x)) == pytest.approx(x / 4)


def test_certain_answers_give_the_log_odds() -> None:
    belief = updated(prior_belief((1, 2), spread=50.0), [said(1, 2, 0.75, 4000.0)])
    assert belief.mean[0] - belief.mean[1] == pytest.approx(log(3), abs=1e-3)


def test_tie_moves_nothing_but_is_known() -> None:
    prior = prior_belief((1, 2))
    after = updated(prior, [said(1, 2, 0.5)])
    assert after.mean == pytest.approx([0, 0])
    assert np.linalg.det(after.covariance) < np.linalg.det(prior.covariance)


def test_no_judgements_no_change() -> None:
    prior = prior_belief(IMAGES)
    assert updated(prior, []) is prior


@settings(deadline=None)
@given(
    plan=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.5, 1.0, 1000.0])))
)
def test_every_answer_makes_the_belief_narrower_and_finite(plan: list[tuple[int, int, float, float]]) -> None:
    belief = prior_belief(IMAGES)
    before = float(np.linalg.slogdet(belief.covariance)[1])
    after = updated(belief, [said(IMAGES[a], IMAGES[b], target, weight) for a, b, target, weight in plan if a != b])
    assert np.isfinite(after.mean).all()
    assert float(np.linalg.slogdet(after.covariance)[1]) <= before + 1e-9


def test_first_pairs_touch_every_image() -> None:
    chosen = next_pairs(prior_belief(IMAGES), 2, seed="s", random_share=0.0)
    assert {image for pair in chosen for image in (pair.image_a, pair.image_b)} == set(IMAGES)


def test_pair_that_is_all_but_decided_is_asked_last() -> None:
    belief = updated(prior_belief((1, 2, 3)), [said(1, 2, 1.0, 30.0), said(1, 3, 1.0, 30.0)])
    first = next_pairs(belief, 1, seed="s", random_share=0.0)[0]
    assert {first.image_a, first.image_b} == {2, 3}


@settings(deadline=None)
@given(
    count=st.integers(0, 8), seed=st.text(max_size=4), share=st.floats(0, 1), asked=st.sets(st.sampled_from(list(combinations(IMAGES, 2))))
)
def test_chosen_pairs_are_new_and_different_with_their_probabilities(
    count: int, seed: str, share: float, asked: set[tuple[int, int]]
) -> None:
    turned = [(b, a) for a, b in asked]
    chosen = next_pairs(prior_belief(IMAGES), count, seed=seed, asked=turned, random_share=share)
    pairs = [(each.image_a, each.image_b) for each in chosen]
    assert len(set(pairs)) == len(pairs) == min(count, 6 - len(asked))
    assert not set(pairs) & asked
    assert all(0 < each.probability <= 1 for each in chosen)
    assert chosen == next_pairs(prior_belief(IMAGES), count, seed=seed, asked=turned, random_share=share)


def test_logged_probabilities_are_those_of_the_draws() -> None:
    belief = updated(prior_belief((1, 2, 3)), [said(1, 2, 1.0, 30.0), said(1, 3, 1.0, 30.0)])
    drawn = [next_pairs(belief, 1, seed=str(seed), random_share=0.3)[0] for seed in range(2000)]
    counted = Counter((each.image_a, each.image_b) for each in drawn)
    for each in drawn:
        assert counted[each.image_a, each.image_b] / len(drawn) == pytest.approx(each.probability, abs=0.03)
    assert np.mean([each.at_random for each in drawn]) == pytest.approx(0.3, abs=0.03)


def test_proxy_is_not_trusted_before_anybody_has_judged() -> None:
    assert proxy_correlation([], {1: 1.0, 2: 2.0}, [(1, 2)]) == 0.0


@pytest.mark.parametrize(("right", "low", "high"), [(0.5, 0.0, 0.2), (0.7, 0.45, 0.75), (0.9, 0.85, 0.98), (0.3, 0.0, 0.1)])
def test_correlation_of_a_proxy_is_found_from_random_votes(right: float, low: float, high: float) -> None:
    random, said_by_all, proxy, groups = np.random.default_rng(0), list[Comparison](), dict[int, float](), list[list[int]]()
    for number, prompt in enumerate(make_prompts(150, right=right, seed=1)):
        ids = [10 * number + image for image in prompt.scores]
        groups.append(ids)
        proxy |= {10 * number + image: value for image, value in prompt.proxy.items()}
        for a, b in [random.choice(7, 2, replace=False) for _ in range(3)]:
            chance = 1 / (1 + np.exp(prompt.scores[int(b)] - prompt.scores[int(a)]))
            said_by_all.append(said(10 * number + int(a), 10 * number + int(b), float(random.random() < chance)))
    assert low <= proxy_correlation(said_by_all, proxy, groups, spread=SPREAD) <= high


def unknown_after(votes: int, *, random_share: float) -> float:
    """Log-determinant of what is not known of seven images' scores after so many votes, one after the other; mean over prompts."""
    left = []
    for number, prompt in enumerate(make_prompts(40, right=0.5, seed=3)):
        belief, random, told = prior_belief(list(prompt.scores)), np.random.default_rng(number), list[Comparison]()
        for turn in range(votes):
            asked = [(each.image_a, each.image_b) for each in told]
            (pair,) = next_pairs(belief, 1, seed=f"{number}/{turn}", asked=asked, random_share=random_share)
            chance = 1 / (1 + np.exp(prompt.scores[pair.image_b] - prompt.scores[pair.image_a]))
            told.append(said(pair.image_a, pair.image_b, float(random.random() < chance)))
            belief = updated(prior_belief(list(prompt.scores)), told)
        left.append(np.linalg.slogdet(belief.covariance)[1])
    return float(np.mean(left))


def test_chosen_pairs_leave_less_unknown_than_random_ones() -> None:
    at_random, mixed, chosen = (unknown_after(10, random_share=share) for share in (1.0, 0.2, 0.0))
    assert chosen < mixed < at_random - 0.1


def needed(*, random_share: float, proxy: str, right: float) -> float:
    """Votes a prompt to know three pairs in four."""
    curve = accuracy_by_votes(make_prompts(50, right=right, seed=0), 12, random_share=random_share, proxy=proxy, seed=0)
    return votes_needed(curve, 0.75)


def test_choosing_with_a_proxy_that_knows_something_needs_far_fewer_votes_than_random_asking() -> None:
    assert needed(random_share=0.2, proxy="fitted", right=0.7) < 0.6 * needed(random_share=1.0, proxy="none", right=0.7)


def test_worthless_proxy_is_found_out_and_costs_few_votes() -> None:
    assert needed(random_share=0.2, proxy="fitted", right=0.5) < needed(random_share=0.2, proxy="none", right=0.5) + 1.5
