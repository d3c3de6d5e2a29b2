"""Scores and reliabilities: closed forms, symmetries, and simulated annotators whose truth is known."""

from math import exp, log
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3po.annotation.ranking import GoldRecord, Reliability, bradley_terry, reliabilities, soft_targets
from d3po.preferences.conversion import comparisons_of, pair_judgements
from d3po.preferences.records import Comparison, Vote
from tests.unit.preferences.votes import tied, won


def said(a: int, b: int, target: float, weight: float = 1.0) -> Comparison:
    return Comparison(image_a=a, image_b=b, target=target, weight=weight)


def crowd(honest: int, spammers: int, *, prompts: int, images: int = 5, overlap: int, seed: int = 0) -> tuple[list[Vote], dict[int, float]]:
    """Votes on all pairs, each by `overlap` of the annotators, drawn at random; and the true scores by image id."""
    random = Random(seed)
    truth = {10 * prompt + image: random.gauss(0, 1.5) for prompt in range(prompts) for image in range(images)}
    votes: list[Vote] = []
    for prompt in range(prompts):
        for a in range(10 * prompt, 10 * prompt + images):
            for b in range(a + 1, 10 * prompt + images):
                for who in random.sample(range(honest + spammers), overlap):
                    chance = 1 / (1 + exp(truth[b] - truth[a])) if who < honest else 0.5
                    winner = a if random.random() < chance else b
                    votes.append(won(winner, a + b - winner, annotator=who, prompt=prompt))
    return votes, truth


def accuracy(comparisons: list[Comparison], truth: dict[int, float]) -> float:
    """Share of pairs whose better picture is named; a tie counts half."""
    right = [0.5 if each.is_tie else float((each.target > 0.5) == (truth[each.image_a] > truth[each.image_b])) for each in comparisons]
    return sum(right) / len(right)


def test_two_pictures_have_the_log_odds_of_their_wins() -> None:
    # 3 wins to 1, and half a win each way from the pseudo tie.
    scores = bradley_terry([said(1, 2, 1.0, 3.0), said(1, 2, 0.0, 1.0)], pseudo_ties=1.0)
    assert scores[1] - scores[2] == pytest.approx(log(3.5 / 1.5), abs=1e-6)
    assert sum(scores.values()) == pytest.approx(0)


def test_soft_target_is_so_many_wins() -> None:
    hard = bradley_terry([said(1, 2, 1.0, 3.0), said(1, 2, 0.0, 1.0)])
    assert bradley_terry([said(1, 2, 0.75, 4.0)]) == pytest.approx(hard)


def test_ties_make_equals() -> None:
    assert bradley_terry([said(1, 2, 0.5), said(2, 3, 0.5)]) == pytest.approx({1: 0, 2: 0, 3: 0}, abs=1e-6)


def test_a_cycle_makes_equals() -> None:
    assert bradley_terry([said(1, 2, 1.0), said(2, 3, 1.0), said(1, 3, 0.0)]) == pytest.approx({1: 0, 2: 0, 3: 0}, abs=1e-6)


def test_unbeaten_picture_has_a_finite_score() -> None:
    scores = bradley_terry([said(1, 2, 1.0, 50.0), said(2, 3, 1.0, 50.0)])
    assert scores[1] > scores[2] > scores[3]
    assert scores[1] < 20


def test_pictures_never_compared_with_each_other_still_have_scores() -> None:
    scores = bradley_terry([said(1, 2, 1.0), said(3, 4, 1.0)])
    assert scores[1] == pytest.approx(scores[3])


def test_no_comparisons_no_scores() -> None:
    assert bradley_terry([]) == {}


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from([0.0, 0.25, 0.5, 1.0])), max_size=15))
def test_scores_do_not_depend_on_which_picture_is_called_a(drawn: list[tuple[int, int, float]]) -> None:
    comparisons = [said(a, b, target) for a, b, target in drawn if a != b]
    turned = [said(each.image_b, each.image_a, 1 - each.target) for each in comparisons]
    assert bradley_terry(turned) == pytest.approx(bradley_terry(comparisons), abs=1e-5)


def test_scores_recover_the_truth() -> None:
    truth = {1: 1.2, 2: 0.3, 3: -0.4, 4: -1.1}
    shares = [said(a, b, 1 / (1 + exp(truth[b] - truth[a])), 1e6) for a in truth for b in truth if a < b]
    assert bradley_terry(shares) == pytest.approx(truth, abs=1e-4)


def test_pull_moves_targets_by_so_many_judgements() -> None:
    (moved,) = soft_targets([said(1, 2, 1.0, 3.0)], {1: 0.0, 2: 0.0}, pull=1.0)
    assert (moved.target, moved.weight) == (pytest.approx((3 + 0.5) / 4), 3.0)
    assert soft_targets([said(1, 2, 1.0, 3.0)], {1: 0.0, 2: 9.0}, pull=0.0) == [said(1, 2, 1.0, 3.0)]


def test_stranger_is_taken_at_the_prior() -> None:
    assert reliabilities(pair_judgements([won(1, 2)])) == {1: Reliability(right=0.8, evidence=0.0)}


def test_gold_alone_by_hand() -> None:
    measured = reliabilities([], gold={7: GoldRecord(right=1, asked=5)})
    assert measured[7].right == pytest.approx((4 + 1) / (5 + 5))
    assert measured[7].weight == 0


def test_ties_tell_nothing_about_their_annotator() -> None:
    measured = reliabilities(pair_judgements([won(1, 2, annotator=1), tied(1, 2, annotator=2)]))
    assert measured[2].evidence == 0


def test_nobody_vouches_for_himself() -> None:
    measured = reliabilities(pair_judgements([won(1, 2) for _ in range(50)]))
    assert measured[1].evidence == pytest.approx(0, abs=1e-9)


def test_random_spammer_gets_a_low_weight() -> None:
    votes, _ = crowd(4, 1, prompts=40, overlap=3)
    measured = reliabilities(pair_judgements(votes))
    assert measured[4].weight < 0.2
    assert min(measured[who].weight for who in range(4)) > 0.5


def test_spammer_is_found_though_no_pair_is_judged_twice() -> None:
    votes, _ = crowd(4, 1, prompts=80, images=7, overlap=1)
    measured = reliabilities(pair_judgements(votes))
    assert measured[4].weight < min(measured[who].weight for who in range(4)) / 2


def test_contrarian_counts_nothing() -> None:
    votes, truth = crowd(4, 0, prompts=30, overlap=3)
    contrary = [
        won(*((a, b) if truth[a] < truth[b] else (b, a)), annotator=9, prompt=p) for p in range(30) for a, b in [(10 * p, 10 * p + 1)]
    ]
    assert reliabilities(pair_judgements([*votes, *contrary]))[9].weight == 0


def test_gold_unmasks_where_agreement_cannot() -> None:
    votes = [won(2 * n, 2 * n + 1, annotator=n % 2, prompt=n) for n in range(1, 40)]
    measured = reliabilities(pair_judgements(votes), gold={0: GoldRecord(right=19, asked=20), 1: GoldRecord(right=9, asked=20)})
    assert measured[0].weight > 0.7
    assert measured[1].weight < 0.1


@pytest.mark.parametrize("seed", range(3))
def test_consensus_by_reliability_beats_the_unweighted_majority(seed: int) -> None:
    votes, truth = crowd(3, 4, prompts=30, overlap=7, seed=seed)
    measured = reliabilities(pair_judgements(votes))
    weighted = comparisons_of(votes, reliability={who: each.weight for who, each in measured.items()})
    assert accuracy(weighted, truth) > accuracy(comparisons_of(votes), truth) + 0.03


def test_order_of_judgements_plays_no_part() -> None:
    judgements = pair_judgements(crowd(3, 1, prompts=5, overlap=2)[0])
    forth, back = reliabilities(judgements), reliabilities(judgements[::-1])
    assert {who: each.right for who, each in forth.items()} == pytest.approx({who: each.right for who, each in back.items()})
