"""Batches: a round's training sees the same votes whenever it asks, and no vote serves two rounds."""

import uuid

from d3po.preferences.records import Answer, NewQuestion
from d3po.store import Store
from tests.unit.store.stores import cast, fill, human, pair, pairs, vote


def test_the_first_claim_fixes_what_every_later_one_sees(store: Store, url: str) -> None:
    store.questions.ask(pairs(fill(store)))
    ada = human(store, "ada")
    first, second, third, *_ = store.questions.lease(ada, 6)
    kept, changed = vote(store, first, ada), vote(store, second, ada, Answer(outcome="tie"))
    claimed = store.batches.claim(0)
    assert [one.id for one in claimed] == [kept.vote, changed.vote]
    vote(store, third, ada)
    vote(store, second, ada, Answer(outcome="skip"))
    store.votes.retract(str(uuid.uuid4()), kept.vote, ada)
    resumed = Store(url)
    assert resumed.batches.claim(0) == resumed.batches.votes(0) == claimed
    resumed.close()


def test_a_batch_holds_standing_training_votes_of_its_round_only(store: Store) -> None:
    images = fill(store)
    other = fill(store, round=1)
    blind = NewQuestion(kind="pair", purpose="blind", images=tuple(images[0][:2]), round=0)
    gold = NewQuestion(
        kind="pair", purpose="gold", images=tuple(images[0][:2]), round=0, gold_answer=Answer(outcome="win", winner=images[0][0])
    )
    store.questions.ask([*pairs(images), *pairs(other, round=1), blind, gold])
    ada = human(store, "ada")
    assigned = store.questions.lease(ada, 99, gold_rate=0.1)
    receipts = {one.question: vote(store, one, ada) for one in assigned}
    withdrawn = next(one for one in assigned if one.purpose == "train" and one.prompt.endswith("round 0"))
    store.votes.retract(str(uuid.uuid4()), receipts[withdrawn.question].vote, ada)
    claimed = store.batches.claim(0)
    assert {(one.purpose, one.round) for one in claimed} == {("train", 0)}
    assert {one.question for one in claimed} == {
        one.question for one in assigned if one.purpose == "train" and one.prompt.endswith("round 0") and one != withdrawn
    }
    assert {one.id for one in store.batches.claim(1)}.isdisjoint(one.id for one in claimed)


def test_a_round_without_votes_has_no_batch_yet_and_stays_open(store: Store) -> None:
    ((a, b, _), _) = fill(store)
    store.questions.ask([pair(a, b)])
    assert store.batches.votes(0) is None
    assert store.batches.claim(0) == []
    assert store.batches.votes(0) is None
    ada = human(store, "ada")
    (assigned,) = store.questions.lease(ada, 1)
    vote(store, assigned, ada)
    assert len(store.batches.claim(0)) == 1


def test_claiming_closes_the_round_and_late_votes_are_kept_but_not_trained_on(store: Store) -> None:
    store.questions.ask(pairs(fill(store), overlap=2))
    ada, bob = human(store, "ada"), human(store, "bob")
    first, second = store.questions.lease(ada, 2)
    vote(store, first, ada)
    store.batches.claim(0)
    assert store.questions.lease(bob, 9) == []
    late = cast(second, ada)
    assert store.votes.cast(late).status == "new"
    assert late.id not in {one.id for one in store.batches.claim(0)}
    assert late.id in {one.id for one in store.votes.current()}


def test_a_batch_keeps_its_values_and_its_order(store: Store) -> None:
    ((a, b, c), _) = fill(store)
    store.questions.ask([NewQuestion(kind="rank", purpose="train", images=(a, b, c), round=0), pair(a, b)])
    ada = human(store, "ada")
    ranked, paired = store.questions.lease(ada, 2)
    vote(store, paired, ada)
    answer = Answer(outcome="rank", values={a: 3.0, b: 1.0, c: 2.0})
    vote(store, ranked, ada, answer)
    assert [one.kind for one in store.batches.claim(0)] == ["pair", "rank"]
    assert store.batches.claim(0)[1].answer == answer
