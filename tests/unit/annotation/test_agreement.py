"""Agreement between annotators and the report on each, against values worked out by hand."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from d3po.annotation.agreement import (
    Proportion,
    Thresholds,
    _alpha,
    _resampled,
    _verdict_counts,
    agreement,
    answered_right,
    report_annotators,
    verdicts_by_annotator,
)
from d3po.preferences.conversion import pair_judgements
from d3po.preferences.records import Answer, Vote
from tests.unit.preferences.votes import best_worst, marked, ranked, scored, thumb, tied, vote, won


def judge(annotator: int, winners: dict[tuple[int, int], int], **given: object) -> list[Vote]:
    return [won(winner, a + b - winner, annotator=annotator, **given) for (a, b), winner in winners.items()]


def coin_judges(annotators: int, pairs: int, right: float, seed: int = 0) -> list[Vote]:
    """Judges who prefer the smaller id with this chance, on pairs of pictures of their own."""
    random = Random(seed)
    return [
        won(a, a + 1, annotator=who) if random.random() < right else won(a + 1, a, annotator=who)
        for who in range(1, annotators + 1)
        for a in range(10, 10 + 2 * pairs, 2)
    ]


def test_alpha_of_three_agreements_in_four_by_hand() -> None:
    # Both ways there are 8 units and 16 values, 8 of each kind. Observed disagreement 1/4; expected 2*8*8/(16*15) = 8/15.
    first = {(1, 2): 1, (3, 4): 4, (5, 6): 5, (7, 8): 8}
    measured = agreement(judge(1, first) + judge(2, first | {(7, 8): 7}))
    assert measured.alpha == pytest.approx(1 - (1 / 4) / (8 / 15))
    assert (measured.pairs, measured.annotators) == (4, 2)


def test_alpha_with_a_tie_by_hand() -> None:
    # Units (1,0)->agree, (1,0.5)->tie against win; turned: the same. Coincidences: o(1,1)=2, o(0,0)=2, o(.5,1)=o(1,.5)=1, o(.5,0)=o(0,.5)=1.
    # n(0)=3, n(.5)=2, n(1)=3, n=8. D_o = 4*(1/4)/8 = 1/8. D_e = (2*3*3*1 + 4*2*3/4)/(8*7) = 24/56.
    votes = [won(1, 2, annotator=1), won(1, 2, annotator=2), won(3, 4, annotator=1), tied(3, 4, annotator=2)]
    assert agreement(votes).alpha == pytest.approx(1 - (1 / 8) / (24 / 56))


def test_perfect_agreement_is_one_even_if_the_smaller_id_always_wins() -> None:
    winners = {(1, 2): 1, (3, 4): 3, (5, 6): 5}
    measured = agreement(judge(1, winners) + judge(2, winners))
    assert measured.alpha == measured.low == measured.high == 1


def test_opposite_judges_are_worse_than_chance() -> None:
    alpha = agreement(judge(1, {(1, 2): 1, (3, 4): 3}) + judge(2, {(1, 2): 2, (3, 4): 4})).alpha
    assert alpha is not None
    assert alpha < -0.5


def test_guessers_agree_as_by_chance_and_the_interval_says_so() -> None:
    measured = agreement(coin_judges(3, 300, 0.5))
    assert measured.low is not None
    assert measured.high is not None
    assert measured.low < 0 < measured.high
    assert measured.high - measured.low < 0.2


def test_alpha_estimates_the_shared_signal() -> None:
    # Independent judges, each right with 0.9: chance-corrected agreement (2 * 0.9 - 1)^2 = 0.64.
    measured = agreement(coin_judges(3, 600, 0.9))
    assert measured.low is not None
    assert measured.high is not None
    assert measured.low < 0.64 < measured.high


def test_bootstrap_is_that_of_the_package() -> None:
    votes = [*coin_judges(3, 40, 0.8), *[tied(a, a + 1, annotator=4) for a in range(10, 40, 2)]]
    counts = _verdict_counts(verdicts_by_annotator(pair_judgements(votes)))[0]
    rng = np.random.default_rng(0)
    plain = np.array([_alpha(counts[rng.integers(len(counts), size=len(counts))]) for _ in range(2000)], dtype=float)
    assert np.percentile(_resampled(counts, 0), [2.5, 50, 97.5]) == pytest.approx(np.percentile(plain, [2.5, 50, 97.5]), abs=0.03)


def test_a_draw_of_all_pairs_has_the_alpha_of_all_pairs() -> None:
    counts = np.array([[0, 1, 2]] * 5)
    assert _resampled(counts, 0) == pytest.approx(_alpha(counts))


def test_where_pictures_stood_plays_no_part() -> None:
    votes = coin_judges(2, 50, 0.8)
    turned = [replace(each, shown=each.shown[::-1]) for each in votes]
    assert agreement(votes) == agreement(turned)


def test_which_picture_has_the_smaller_id_plays_no_part() -> None:
    votes = coin_judges(2, 50, 0.8)
    renamed = [
        replace(each, images=tuple(sorted(-i for i in each.images)), answer=Answer(outcome="win", winner=-(each.answer.winner or 0)))
        for each in votes
    ]
    assert agreement(renamed).alpha == pytest.approx(agreement(votes).alpha)


def test_rankings_and_pairs_agree_with_each_other() -> None:
    votes = [ranked({1: 1, 2: 2, 3: 3}, annotator=1), *judge(2, {(1, 2): 1, (1, 3): 1, (2, 3): 2})]
    measured = agreement(votes)
    assert (measured.alpha, measured.pairs) == (1.0, 3)


@pytest.mark.parametrize("votes", [[], [won(1, 2)], [won(1, 2, annotator=1), won(3, 4, annotator=2)]])
def test_without_shared_pairs_nothing_is_claimed(votes: list[Vote]) -> None:
    measured = agreement(votes)
    assert (measured.alpha, measured.low, measured.high, measured.pairs) == (None, None, None, 0)
    assert str(measured) == "unknown (0 pairs with two judges or more)"


def test_only_ties_leave_alpha_unknown() -> None:
    assert agreement([tied(1, 2, annotator=1), tied(1, 2, annotator=2)]).alpha is None


def test_agreement_reads_as_a_line() -> None:
    winners = {(1, 2): 1, (3, 4): 3}
    assert str(agreement(judge(1, winners) + judge(2, winners))) == "1.000 [1.000, 1.000] over 2 pairs, 2 annotators"


def test_wilson_interval_by_hand() -> None:
    # 8 of 10 with z = 1.96: centre (0.8 + z^2/20) / (1 + z^2/10) = 0.7168, half width 0.2266.
    assert Proportion(count=8, total=10).interval == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert Proportion(count=0, total=0).interval == (0, 1)
    assert str(Proportion(count=8, total=10)) == "0.80 [0.49, 0.94] of 10"


@pytest.mark.parametrize(
    ("cast", "expected", "right"),
    [
        (won(1, 2), Answer(outcome="win", winner=1), True),
        (won(2, 1), Answer(outcome="win", winner=1), False),
        (tied(1, 2), Answer(outcome="win", winner=1), False),
        (vote("pair", (1, 2), Answer(outcome="skip")), Answer(outcome="win", winner=1), False),
        (vote("pair", (1, 2), Answer(outcome="both_bad")), Answer(outcome="both_bad"), True),
        (best_worst((1, 2, 3), 1, 3), Answer(outcome="best_worst", values={1: 1.0, 3: -1.0}), True),
        (best_worst((1, 2, 3), 2, 3), Answer(outcome="best_worst", values={1: 1.0, 3: -1.0}), False),
        (marked((1, 2, 3), (3,)), Answer(outcome="marks", values={3: 1.0}), True),
        (marked((1, 2, 3), (2, 3)), Answer(outcome="marks", values={3: 1.0}), False),
        (thumb(1, True), Answer(outcome="up"), True),
        (thumb(1, False), Answer(outcome="up"), False),
        (scored(1, 4), Answer(outcome="score", values={1: 5.0}), True),
        (scored(1, 3), Answer(outcome="score", values={1: 5.0}), False),
    ],
)
def test_gold_is_checked_by_what_is_said_of_each_two_pictures(cast: Vote, expected: Answer, right: bool) -> None:
    assert answered_right(cast, expected) == right


def test_report_of_one_annotator_by_hand() -> None:
    # 1 over 2 over 3 over 1 is a circle; 1, 2, 4 is in order. Left won 3 of 5.
    votes = [
        won(1, 2, shown=(1, 2), rt_ms=100),
        won(2, 3, shown=(2, 3), rt_ms=200),
        won(3, 1, shown=(3, 1), rt_ms=900),
        won(1, 4, shown=(4, 1), rt_ms=1000),
        won(2, 4, shown=(4, 2), rt_ms=None),
    ]
    (report,) = report_annotators(votes)
    assert (report.annotator, report.votes) == (1, 5)
    assert (report.left.count, report.left.total, report.left_p) == (3, 5, 1.0)
    assert (report.median_rt_ms, report.fast.count, report.fast.total) == (550, 2, 4)
    assert (report.cycles.count, report.cycles.total) == (1, 2)
    assert (report.gold.total, report.others.total) == (0, 0)
    assert report.suspicions == ()


def test_left_rate_p_value_by_hand() -> None:
    (report,) = report_annotators([won(a, a + 1, shown=(a, a + 1)) for a in range(0, 20, 2)])
    assert report.left_p == pytest.approx(2 / 2**10)


def test_agreement_with_the_majority_of_the_others() -> None:
    votes = [won(1, 2, annotator=1), won(1, 2, annotator=2), won(2, 1, annotator=3), won(2, 1, annotator=4)]
    votes += [won(3, 4, annotator=who) for who in (1, 2, 3)] + [tied(3, 4, annotator=4)]
    others = {report.annotator: (report.others.count, report.others.total) for report in report_annotators(votes)}
    # On (1, 2) each is alone with one against two; on (3, 4) all agree but the fourth, whose tie is left out.
    assert others == {1: (1, 2), 2: (1, 2), 3: (1, 2), 4: (0, 1)}


def test_gold_accuracy_counts_gold_questions_only() -> None:
    votes = [won(1, 2, question=1, purpose="gold"), won(4, 3, question=2, purpose="gold"), won(5, 6, question=3)]
    gold = {1: Answer(outcome="win", winner=1), 2: Answer(outcome="win", winner=3)}
    (report,) = report_annotators(votes, gold=gold)
    assert (report.gold.count, report.gold.total) == (1, 2)


def test_spammer_is_suspected_for_each_reason_and_honest_people_for_none() -> None:
    random = Random(5)
    pairs = [(10 * p + a, 10 * p + b) for p in range(60) for a in range(4) for b in range(a + 1, 4)]
    votes: list[Vote] = []
    for number, (a, b) in enumerate(pairs):
        for who in (1, 2, 3):
            winner = a if random.random() < 0.85 else b
            shown = (a, b) if random.random() < 0.5 else (b, a)
            votes.append(won(winner, a + b - winner, annotator=who, shown=shown, question=number))
        winner = a if random.random() < 0.5 else b
        votes.append(won(winner, a + b - winner, annotator=4, shown=(winner, a + b - winner), rt_ms=120, question=number))
    gold = {number: Answer(outcome="win", winner=a) for number, (a, _) in enumerate(pairs) if number % 4 == 0}
    reports = report_annotators(votes, gold=gold)
    assert [bool(report.suspicions) for report in reports] == [False, False, False, True]
    text = "; ".join(reports[-1].suspicions)
    expected = ("gold questions right", "guessing gives half", "the left picture in 360 of 360", "less than 300 ms")
    assert [word for word in expected if word not in text] == []


def test_thresholds_can_be_chosen() -> None:
    votes = [won(a, a + 1, rt_ms=200) for a in range(0, 40, 2)]
    assert "took less than" in "".join(report_annotators(votes)[0].suspicions)
    assert report_annotators(votes, thresholds=Thresholds(fast=1.0, side_p=0.0))[0].suspicions == ()
