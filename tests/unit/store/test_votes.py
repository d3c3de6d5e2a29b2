"""Votes in the store: sent twice is one vote, changed is a new event, withdrawn comes again, and nothing that was said is lost."""

import uuid
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select

from d3po.errors import VoteConflictError, VoteError
from d3po.preferences.records import Answer, Assigned, Cast, Kind, NewQuestion
from d3po.store import Receipt, Retract, Store
from d3po.store.database import file_address
from d3po.store.tables import VoteRow
from tests.unit.store.stores import cast, fill, human, pair, pairs, vote
from tests.unit.store.test_questions import let_time_pass, open_slots


def events(store: Store) -> int:
    with store.database.reading() as connection:
        return connection.execute(select(func.count()).select_from(VoteRow)).scalar_one()


def retract(store: Store, vote: str, annotator: int) -> Receipt:
    return store.votes.retract(str(uuid.uuid4()), vote, annotator)


@pytest.fixture
def ada(store: Store) -> int:
    return human(store, "ada")


@pytest.fixture
def bob(store: Store) -> int:
    return human(store, "bob")


@pytest.fixture
def assigned(store: Store, ada: int) -> Assigned:
    """One of six pairs, leased to ada."""
    store.questions.ask(pairs(fill(store)))
    return store.questions.lease(ada, 1)[0]


def test_a_vote_comes_back_as_it_was_cast(store: Store, ada: int, assigned: Assigned) -> None:
    sent = cast(assigned, ada, rt_ms=1234)
    receipt = store.votes.cast(sent)
    assert (receipt.vote, receipt.status, receipt.assignment) == (sent.id, "new", assigned.assignment)
    (vote,) = store.votes.current()
    assert (vote.id, vote.question, vote.kind, vote.purpose, vote.round) == (sent.id, assigned.question, "pair", "train", 0)
    assert (vote.shown, vote.images) == (assigned.shown, tuple(sorted(assigned.shown)))
    assert (vote.annotator, vote.answer, vote.rt_ms) == (ada, sent.answer, 1234)
    assert 0 <= store.now() - vote.received_at < 60_000


def test_the_same_vote_sent_again_is_a_duplicate_however_often(store: Store, ada: int, assigned: Assigned) -> None:
    sent = cast(assigned, ada)
    assert [store.votes.cast(sent).status for _ in range(3)] == ["new", "duplicate", "duplicate"]
    assert [isinstance(one, Receipt) and one.status for one in store.votes.cast_many([sent, sent])] == ["duplicate"] * 2
    assert events(store) == 1


@pytest.mark.parametrize("change", [{"rt_ms": 901}, {"client": "another tab"}, {"answer": Answer(outcome="tie")}])
def test_the_same_id_with_other_words_is_a_conflict(store: Store, ada: int, assigned: Assigned, change: dict[str, Any]) -> None:
    sent = cast(assigned, ada)
    store.votes.cast(sent)
    other = replace(sent, **change)
    with pytest.raises(VoteConflictError, match="make a new UUID"):
        store.votes.cast(other)
    assert [vote.answer for vote in store.votes.current()] == [sent.answer]


def test_an_id_is_good_for_one_vote_whoever_uses_it(store: Store, ada: int, bob: int, assigned: Assigned) -> None:
    (his,) = store.questions.lease(bob, 1)
    sent = cast(assigned, ada)
    store.votes.cast(sent)
    with pytest.raises(VoteConflictError):
        store.votes.cast(cast(his, bob, id=sent.id))
    with pytest.raises(VoteConflictError):
        store.votes.retract(sent.id, sent.id, ada)


def test_voting_again_replaces_what_was_said(store: Store, ada: int, assigned: Assigned) -> None:
    left, right = assigned.shown
    for winner in (left, right, left):
        vote(store, assigned, ada, Answer(outcome="win", winner=winner))
    assert [one.answer.winner for one in store.votes.current()] == [left]
    assert events(store) == 3
    assert store.votes.count() == 1


def test_a_replaced_vote_sent_again_changes_nothing(store: Store, ada: int, assigned: Assigned) -> None:
    first = cast(assigned, ada, Answer(outcome="tie"))
    store.votes.cast(first)
    vote(store, assigned, ada, Answer(outcome="both_bad"))
    assert store.votes.cast(first).status == "duplicate"
    assert [one.answer.outcome for one in store.votes.current()] == ["both_bad"]


def test_only_the_annotator_who_was_asked_may_answer(store: Store, bob: int, assigned: Assigned) -> None:
    with pytest.raises(VoteError, match="no assignment"):
        vote(store, assigned, bob)
    with pytest.raises(VoteError, match="no assignment"):
        store.votes.cast(Cast(id=str(uuid.uuid4()), assignment="elsewhere", annotator=bob, answer=Answer(outcome="tie")))


GOOD: list[tuple[Kind, Any]] = [
    ("pair", lambda a, b, *_: Answer(outcome="win", winner=a)),
    ("pair", lambda a, b, *_: Answer(outcome="share", values={a: 0.25, b: 0.75})),
    ("pair", lambda *_: Answer(outcome="flag", reason="a picture of a person I know")),
    ("best_worst", lambda a, b, c: Answer(outcome="best_worst", values={a: 1.0, c: -1.0})),
    ("best_worst", lambda *_: Answer(outcome="both_bad")),
    ("rank", lambda a, b, c: Answer(outcome="rank", values={a: 1.0, b: 2.0, c: 2.0})),
    ("rank", lambda a, b, c: Answer(outcome="rank", values={a: 1.0, b: 3.0})),
    ("grid", lambda a, b, c: Answer(outcome="marks", values={a: 1.0, b: 1.0})),
    ("grid", lambda *_: Answer(outcome="marks")),
    ("thumb", lambda a, *_: Answer(outcome="up")),
    ("score", lambda a, *_: Answer(outcome="score", values={a: 4.5})),
    ("score", lambda *_: Answer(outcome="skip")),
]  # fmt: skip
BAD: list[tuple[Kind, Any, str]] = [
    ("pair", lambda a, b, *_: Answer(outcome="rank", values={a: 1.0, b: 2.0}), "no answer to a pair"),
    ("pair", lambda *_: Answer(outcome="win"), "names its winner"),
    ("pair", lambda a, *_: Answer(outcome="tie", winner=a), "names its winner"),
    ("pair", lambda *_: Answer(outcome="win", winner=999), "picture 999 is not in the question"),
    ("pair", lambda a, *_: Answer(outcome="share", values={a: 1.0, 999: 0.0}), "picture 999"),
    ("pair", lambda a, b, *_: Answer(outcome="share", values={a: 0.5, b: 0.6}), "together 1"),
    ("pair", lambda a, b, *_: Answer(outcome="share", values={a: -0.5, b: 1.5}), "together 1"),
    ("pair", lambda a, *_: Answer(outcome="share", values={a: 1.0}), "together 1"),
    ("pair", lambda a, *_: Answer(outcome="win", winner=a, values={a: 1.0}), "no values"),
    ("pair", lambda *_: Answer(outcome="tie", reason="no idea"), "only a flag"),
    ("pair", lambda *_: Answer(outcome="flag", reason="x" * 2001), "2001 characters"),
    ("pair", lambda *_: Answer(outcome="flag", reason="a\0b"), "no null character"),
    ("best_worst", lambda a, b, c: Answer(outcome="best_worst", values={a: 1.0, b: 1.0}), "-1 for the worst"),
    ("best_worst", lambda a, *_: Answer(outcome="best_worst", values={a: 1.0}), "-1 for the worst"),
    ("rank", lambda a, b, c: Answer(outcome="rank", values={a: 1.0, b: 4.0}), "whole place from 1 to 3"),
    ("rank", lambda a, b, c: Answer(outcome="rank", values={a: 1.0, b: 1.5}), "whole place"),
    ("rank", lambda a, *_: Answer(outcome="rank", values={a: 1.0}), "two pictures or more"),
    ("grid", lambda a, *_: Answer(outcome="marks", values={a: 0.0}), "1 for each marked"),
    ("score", lambda a, *_: Answer(outcome="score", values={a: 5.5}), "one score from 1 to 5"),
    ("score", lambda a, *_: Answer(outcome="score", values={a: float("nan")}), "not a number"),
    ("thumb", lambda a, *_: Answer(outcome="up", values={a: 1.0}), "no values"),
]  # fmt: skip


def question(store: Store, annotator: int, kind: Kind) -> Assigned:
    ((*images,),) = fill(store, prompts=1)
    count = {"pair": 2, "thumb": 1, "score": 1}.get(kind, 3)
    store.questions.ask([NewQuestion(kind=kind, purpose="train", images=tuple(images[:count]), round=0)])
    return store.questions.lease(annotator, 1)[0]


@pytest.mark.parametrize(("kind", "make"), GOOD)
def test_every_kind_of_answer_comes_back_as_it_was_given(store: Store, ada: int, kind: Kind, make: Any) -> None:
    assigned = question(store, ada, kind)
    images = sorted(assigned.shown)
    answer = make(*images, *[0] * (3 - len(images)))
    vote(store, assigned, ada, answer)
    assert [one.answer for one in store.votes.current()] == [answer]


@pytest.mark.parametrize(("kind", "make", "message"), BAD)
def test_answers_that_do_not_fit_are_refused(store: Store, ada: int, kind: Kind, make: Any, message: str) -> None:
    assigned = question(store, ada, kind)
    images = sorted(assigned.shown)
    with pytest.raises(VoteError, match=message):
        vote(store, assigned, ada, make(*images, *[0] * (3 - len(images))))
    assert events(store) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "7"}, "UUID"),
        ({"id": str(uuid.uuid4()).upper()}, "UUID"),
        ({"rt_ms": -1}, "rt_ms is -1"),
        ({"rt_ms": 2**31}, "milliseconds"),
        ({"client": "x" * 201}, "201 characters"),
    ],
)
def test_votes_that_cannot_be_kept_are_refused(store: Store, ada: int, assigned: Assigned, change: dict[str, Any], message: str) -> None:
    sent = Cast(id=str(uuid.uuid4()), assignment=assigned.assignment, annotator=ada, answer=Answer(outcome="tie"))
    with pytest.raises(VoteError, match=message):
        store.votes.cast(replace(sent, **change))


def test_votes_that_come_together_do_not_hinder_each_other(store: Store, ada: int) -> None:
    store.questions.ask(pairs(fill(store)))
    first, second, third = store.questions.lease(ada, 3)
    results = store.votes.cast_many([cast(first, ada), cast(second, ada, Answer(outcome="up")), cast(third, ada)])
    assert [getattr(result, "status", type(result)) for result in results] == ["new", VoteError, "new"]
    assert store.votes.count() == 2


def test_a_vote_that_the_database_itself_refuses_does_not_hinder_others(store: Store, ada: int) -> None:
    store.questions.ask(pairs(fill(store)))
    first, second, third = store.questions.lease(ada, 3)
    with store.database.transaction() as connection:
        connection.exec_driver_sql(f"DELETE FROM question_image WHERE question_id = {second.question}")
    results = store.votes.cast_many([cast(first, ada), cast(second, ada), cast(third, ada)])
    assert [getattr(result, "status", None) for result in results] == ["new", None, "new"]
    assert "cannot be recorded" in str(results[1])
    assert store.votes.count() == 2


def test_a_vote_and_its_withdrawal_may_come_together(store: Store, ada: int, assigned: Assigned) -> None:
    sent = cast(assigned, ada)
    undo = Retract(id=str(uuid.uuid4()), vote=sent.id, annotator=ada)
    results = store.votes.cast_many([sent, undo, undo])
    assert [getattr(result, "status", result) for result in results] == ["new", "new", "duplicate"]
    assert store.votes.count() == 0


def test_a_withdrawn_vote_puts_its_question_before_the_annotator_again_in_the_same_order(
    store: Store, ada: int, assigned: Assigned
) -> None:
    cast_ = vote(store, assigned, ada)
    receipt = retract(store, cast_.vote, ada)
    assert (receipt.status, receipt.assignment) == ("new", assigned.assignment)
    (again, *_) = store.questions.lease(ada, 1)
    assert (again.assignment, again.shown) == (assigned.assignment, assigned.shown)
    assert store.votes.count() == 0
    vote(store, again, ada)
    assert store.votes.count() == 1
    assert events(store) == 3


def test_two_tabs_that_undo_the_same_vote_withdraw_it_once(store: Store, ada: int, assigned: Assigned) -> None:
    sent = vote(store, assigned, ada)
    first, second = retract(store, sent.vote, ada), retract(store, sent.vote, ada)
    assert (second.vote, second.status) == (first.vote, "duplicate")
    assert events(store) == 2


def test_an_undo_that_comes_late_leaves_the_newer_vote_alone(store: Store, ada: int, assigned: Assigned) -> None:
    first = vote(store, assigned, ada, Answer(outcome="tie"))
    undo = Retract(id=str(uuid.uuid4()), vote=first.vote, annotator=ada)
    store.votes.cast_many([undo])
    vote(store, assigned, ada, Answer(outcome="skip"))
    assert retract(store, first.vote, ada).status == "duplicate"
    assert store.votes.retract(undo.id, undo.vote, ada).status == "duplicate"
    assert [one.answer.outcome for one in store.votes.current()] == ["skip"]


def test_nobody_withdraws_somebody_elses_vote_or_what_is_no_vote(store: Store, ada: int, bob: int, assigned: Assigned) -> None:
    sent = vote(store, assigned, ada)
    undone = retract(store, sent.vote, ada)
    for wrong, annotator in [(sent.vote, bob), (undone.vote, ada), (str(uuid.uuid4()), ada)]:
        with pytest.raises(VoteError, match="has cast no vote"):
            retract(store, wrong, annotator)
    with pytest.raises(VoteError, match="UUID"):
        store.votes.retract("undo", sent.vote, ada)


def test_a_vote_whose_lease_was_lost_is_kept_beside_those_asked_for(
    store: Store, ada: int, bob: int, assigned: Assigned, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_time_pass(store, monkeypatch, 1e5)
    (taken,) = (one for one in store.questions.lease(bob, 9) if one.question == assigned.question)
    assert vote(store, assigned, ada).status == "new"
    assert vote(store, taken, bob).status == "new"
    assert {(one.question, one.annotator) for one in store.votes.current()} == {(assigned.question, ada), (assigned.question, bob)}


def test_a_late_vote_takes_a_slot_that_is_still_open(store: Store, ada: int, bob: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ((a, b, c), _) = fill(store)
    store.questions.ask([pair(a, b), pair(b, c)])
    _, late = store.questions.lease(ada, 2)
    let_time_pass(store, monkeypatch, 1e5)
    assert len(store.questions.lease(bob, 1)) == 1
    assert open_slots(store) == [0, 1]
    vote(store, late, ada)
    assert open_slots(store) == [0, 0]
    assert len(store.questions.lease(bob, 9)) == 1


def test_an_undone_extra_vote_stays_lost_but_may_be_cast_again(
    store: Store, ada: int, bob: int, assigned: Assigned, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_time_pass(store, monkeypatch, 1e5)
    store.questions.lease(bob, 9)
    late = vote(store, assigned, ada)
    retract(store, late.vote, ada)
    assert store.questions.lease(ada, 9) == []
    vote(store, assigned, ada)
    assert [one.annotator for one in store.votes.current()] == [ada]


def test_an_undo_after_training_does_not_open_the_question_again(store: Store, ada: int, bob: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ((a, b, _), _) = fill(store)
    store.questions.ask([pair(a, b)])
    (assigned,) = store.questions.lease(ada, 1)
    sent = vote(store, assigned, ada)
    store.batches.claim(0)
    retract(store, sent.vote, ada)
    let_time_pass(store, monkeypatch, 1e5)
    assert store.questions.lease(bob, 1) == []


def test_standing_votes_are_read_in_order_by_round_and_purpose(store: Store, ada: int) -> None:
    store.questions.ask(pairs(fill(store)))
    store.questions.ask(pairs(fill(store, round=1), round=1))
    (blind, *_) = pairs(fill(store, round=2), round=2)
    store.questions.ask([NewQuestion(kind="pair", purpose="blind", images=blind.images, round=None)])
    for one in store.questions.lease(ada, 99):
        vote(store, one, ada)
    numbers = [one.sequence for one in store.votes.current()]
    assert numbers == sorted(numbers)
    assert len(numbers) == 13
    assert [store.votes.count(round=round, purpose="train") for round in (0, 1, 2)] == [6, 6, 0]
    assert {one.round for one in store.votes.current(round=1)} == {1}
    assert len(list(store.votes.current(purpose="blind"))) == store.votes.count(purpose="blind") == 1
    assert [one.sequence for one in store.votes.current(after=numbers[3], limit=4)] == numbers[4:8]


def test_reading_votes_does_not_stop_anybody_from_voting(store: Store, ada: int) -> None:
    store.questions.ask(pairs(fill(store)))
    first, second, *rest = store.questions.lease(ada, 6)
    vote(store, first, ada)
    vote(store, second, ada)
    reading = store.votes.current()
    seen = [next(reading)]
    for one in rest:
        vote(store, one, ada)
    assert len([*seen, *reading]) == 2
    assert store.votes.count() == 6


def test_judgements_of_a_rule_are_votes_and_recording_them_again_adds_nothing(store: Store) -> None:
    images = fill(store, prompts=4, images=4)
    rule = store.people.annotator("reward:size", "rule").id
    judged = [(question, Answer(outcome="win", winner=question.images[0])) for question in pairs(images)]
    assert store.votes.record_judgements(rule, judged) == len(judged) == 24
    assert store.votes.record_judgements(rule, judged[::-1]) == 0
    assert [one.answer.winner for one in store.votes.current(round=0)] == [question.images[0] for question, _ in judged]
    assert {one.annotator for one in store.votes.current()} == {rule}
    assert store.questions.progress(round=0).left == 0


def test_judgements_have_the_same_ids_in_every_database(store: Store, tmp_path: Any) -> None:
    ids = []
    for where in (store, Store(file_address(tmp_path / "other.db"))):
        ((a, b, _), _) = fill(where)
        where.votes.record_judgements(where.people.annotator("judge", "model").id, [(pair(a, b), Answer(outcome="tie"))])
        ids.append([one.id for one in where.votes.current()])
    where.close()
    assert ids[0] == ids[1]


def test_a_judgement_that_says_otherwise_than_before_is_refused_with_all_others(store: Store) -> None:
    ((a, b, c), _) = fill(store)
    judge = store.people.annotator("judge", "model").id
    store.votes.record_judgements(judge, [(pair(a, b), Answer(outcome="tie"))])
    with pytest.raises(VoteConflictError, match="answered differently"):
        store.votes.record_judgements(judge, [(pair(b, c), Answer(outcome="tie")), (pair(a, b), Answer(outcome="skip"))])
    assert store.votes.count() == 1


def test_a_models_judgement_answers_nobodys_question_but_an_imported_persons_does(store: Store, ada: int, bob: int) -> None:
    ((a, b, c), _) = fill(store)
    store.questions.ask([pair(a, b, overlap=2), pair(b, c)])
    model = store.people.annotator("judge", "model").id
    answers = [(pair(a, b), Answer(outcome="tie")), (pair(b, c), Answer(outcome="tie"))]
    store.votes.record_judgements(model, answers)
    assert open_slots(store) == [2, 1]
    store.votes.record_judgements(human(store, "imported"), answers)
    assert open_slots(store) == [1, 0]
    assert len(store.questions.lease(ada, 9)) == 1
    assert store.questions.lease(bob, 9) == []


def test_judgements_are_not_mixed_with_answers_given_in_the_app(store: Store, ada: int, assigned: Assigned) -> None:
    with pytest.raises(VoteConflictError, match="was put to ada in the app"):
        store.votes.record_judgements(ada, [(pair(*assigned.shown), Answer(outcome="tie"))])


def test_a_judgement_that_does_not_fit_its_question_is_refused(store: Store) -> None:
    ((a, b, _), _) = fill(store)
    with pytest.raises(VoteError, match="no answer to a pair"):
        store.votes.record_judgements(human(store, "ada"), [(pair(a, b), Answer(outcome="up"))])
    assert open_slots(store) == []


def test_a_judgement_with_values_comes_back(store: Store) -> None:
    ((a, b, _), _) = fill(store)
    answer = Answer(outcome="share", values={a: 0.7, b: 0.3})
    store.votes.record_judgements(store.people.annotator("judge", "model").id, [(pair(b, a), answer)])
    ((one),) = store.votes.current()
    assert (one.answer, one.shown, one.images) == (answer, (b, a), (a, b))
