"""Pairs that come again with the sides swapped: to whom, when, and what is made of the answers."""

import pytest

from d3po.annotation.agreement import agreement, report_annotators
from d3po.preferences.records import Answer, Assigned
from d3po.store import Store
from d3po.store.repeats import GAP
from tests.unit.preferences.votes import tied, won
from tests.unit.store.stores import fill, human, pairs, vote


def decide(store: Store, annotator: int, count: int, *, repeat_rate: float = 0.0) -> list[Assigned]:
    """Answer so many questions, one at a time, always for the picture with the smaller id."""
    done: list[Assigned] = []
    for _ in range(count):
        items = store.questions.lease(annotator, 1, repeat_rate=repeat_rate)
        for item in items:
            vote(store, item, annotator, Answer(outcome="win", winner=min(item.shown)))
        done += items
    return done


def test_a_pair_decided_a_while_ago_comes_again_with_the_sides_swapped(store: Store) -> None:
    store.questions.ask(pairs(fill(store, prompts=4, images=4)))
    ada = human(store, "ada")
    done = decide(store, ada, GAP, repeat_rate=1.0)
    assert {item.purpose for item in done} == {"train"}, "nothing is old enough yet"
    (next_one,) = decide(store, ada, 1, repeat_rate=0.0)
    (again,) = store.questions.lease(ada, 1, repeat_rate=1.0)
    assert (again.purpose, again.kind) == ("repeat", "pair")
    assert again.shown == done[0].shown[::-1]
    assert again.prompt == done[0].prompt
    assert next_one.purpose == "train"
    assert [item.assignment for item in store.questions.lease(ada, 1, repeat_rate=1.0)] == [again.assignment], (
        "it stays in front of her until she answers"
    )


def test_no_pair_comes_a_third_time_and_one_in_so_many_is_a_repeat(store: Store) -> None:
    store.questions.ask(pairs(fill(store, prompts=10, images=4)))
    done = decide(store, human(store, "ada"), 66, repeat_rate=0.1)
    again = [frozenset(item.shown) for item in done if item.purpose == "repeat"]
    assert len(again) == len(set(again)) == 6
    assert len(done) == 66


def test_a_repeat_is_put_to_nobody_else_not_even_when_its_lease_is_lost(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.questions.ask(pairs(fill(store, prompts=3, images=4)))
    ada, bob = human(store, "ada"), human(store, "bob")
    decide(store, ada, GAP + 1)
    (again,) = store.questions.lease(ada, 1, repeat_rate=1.0)
    assert again.purpose == "repeat"
    now = store.now()
    monkeypatch.setattr(store.database, "now", lambda: now + 3_600_000)
    others = decide(store, bob, 100)
    assert {item.purpose for item in others} == {"train"}
    assert len(others) == 18 - GAP - 1
    assert vote(store, again, ada).status == "new", "late answers are kept"


def test_two_people_may_be_asked_the_same_pair_again(store: Store) -> None:
    store.questions.ask(pairs(fill(store, prompts=3, images=4), overlap=2))
    for name in ("ada", "bob"):
        decide(store, human(store, name), GAP + 1)
        (again,) = store.questions.lease(human(store, name), 1, repeat_rate=1.0)
        assert again.purpose == "repeat"
        vote(store, again, human(store, name))


def test_nothing_is_repeated_while_there_is_nothing_new(store: Store) -> None:
    store.questions.ask(pairs(fill(store, prompts=2, images=4)))
    ada = human(store, "ada")
    assert len(decide(store, ada, 12)) == 12
    assert store.questions.lease(ada, 4, repeat_rate=1.0) == []


def test_repeats_are_never_trained_on_and_nobody_agrees_with_themselves(store: Store) -> None:
    store.questions.ask(pairs(fill(store, prompts=3, images=4)))
    ada = human(store, "ada")
    decide(store, ada, GAP + 1)
    (again,) = store.questions.lease(ada, 1, repeat_rate=1.0)
    vote(store, again, ada, Answer(outcome="win", winner=max(again.shown)))
    assert agreement(store.votes.current()).pairs == 0
    assert {each.purpose for each in store.batches.claim(0)} == {"train"}


def test_consistency_counts_pairs_decided_twice() -> None:
    first = [won(1, 2), won(3, 4), won(5, 6), tied(7, 8), won(9, 10, annotator=2)]
    again = [won(1, 2, purpose="repeat"), won(4, 3, purpose="repeat"), tied(5, 6, purpose="repeat"), won(7, 8, purpose="repeat")]
    again.append(won(9, 10, purpose="repeat"))  # somebody else decided that one
    one, two = report_annotators(first + again)
    assert (one.consistent.count, one.consistent.total) == (1, 2)
    assert two.consistent.share is None


def test_who_never_says_the_same_again_is_named() -> None:
    votes = [won(10 * i, 10 * i + 1) for i in range(30)] + [won(10 * i + 1, 10 * i, purpose="repeat") for i in range(30)]
    (report,) = report_annotators(votes)
    assert "decided 0 of 30 pairs the same way again; guessing gives half" in report.suspicions
