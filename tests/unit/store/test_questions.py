"""Questions in the store: asked once, put to nobody twice, and never to more people than wanted."""

import shutil
import uuid
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from d3po.errors import VoteError
from d3po.preferences.records import Answer, Kind, NewQuestion
from d3po.store import Store
from d3po.store.database import file_address
from d3po.store.tables import QuestionRow
from tests.unit.store.stores import fill, human, pair, pairs, prefers_left, vote


def gold(a: int, b: int) -> NewQuestion:
    answer = Answer(outcome="win", winner=a)
    return NewQuestion(kind="pair", purpose="gold", images=(a, b), round=None, overlap=100, gold_answer=answer)


def open_slots(store: Store) -> list[int]:
    with store.database.reading() as connection:
        return list(connection.execute(select(QuestionRow.open_slots).order_by(QuestionRow.id)).scalars())


def let_time_pass(store: Store, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = store.now() + round(1000 * seconds)
    monkeypatch.setattr(store.database, "now", lambda: now)


def test_the_same_pictures_asked_the_same_way_are_one_question_in_whatever_order(store: Store) -> None:
    ((a, b, c), _) = fill(store)
    first = store.questions.ask([pair(a, b), pair(b, c)])
    assert store.questions.ask([pair(c, b), pair(b, a)]) == first[::-1]
    assert store.questions.ask([pair(a, b), pair(b, a)]) == [first[0], first[0]]


def test_the_same_pictures_asked_another_way_or_for_another_purpose_are_another_question(store: Store) -> None:
    ((a, b, _), _) = fill(store)
    questions = [
        pair(a, b),
        gold(a, b),
        NewQuestion(kind="rank", purpose="train", images=(a, b), round=0),
        NewQuestion(kind="pair", purpose="blind", images=(a, b), round=0),
    ]
    assert len(set(store.questions.ask(questions))) == 4


@pytest.mark.parametrize(
    ("kind", "count", "message"),
    [("pair", 3, "about 2 pictures"), ("pair", 1, "about 2 pictures"), ("thumb", 2, "about 1 pictures"), ("rank", 1, "2 pictures or more")],
)
def test_a_question_has_as_many_pictures_as_its_kind_needs(store: Store, kind: Kind, count: int, message: str) -> None:
    ((*images,), _) = fill(store)
    with pytest.raises(VoteError, match=message):
        store.questions.ask([NewQuestion(kind=kind, purpose="train", images=tuple(images[:count]), round=0)])


def test_questions_that_make_no_sense_are_refused_and_none_is_recorded(store: Store) -> None:
    ((a, b, c), (d, _, _)) = fill(store)
    for wrong, message in [
        (pair(a, a), "names a picture twice"),
        (pair(a, d), "not of one prompt"),
        (pair(a, 999), "picture 999 is not in the store"),
        (pair(a, b, overlap=0), "answered once or more"),
        (NewQuestion(kind="pair", purpose="gold", images=(a, b), round=None), "has an expected answer"),
        (NewQuestion(kind="pair", purpose="train", images=(a, b), round=0, gold_answer=Answer(outcome="tie")), "no other question has"),
        (NewQuestion(kind="pair", purpose="gold", images=(a, b), round=None, gold_answer=Answer(outcome="win", winner=c)), f"picture {c}"),
    ]:
        with pytest.raises(VoteError, match=message):
            store.questions.ask([pair(b, c), wrong])
    assert open_slots(store) == []


def test_what_is_expected_of_a_gold_question_is_kept(store: Store) -> None:
    ((a, b, c), _) = fill(store)
    answer = Answer(outcome="rank", values={a: 1.0, b: 2.0, c: 2.0})
    (first, second) = store.questions.ask(
        [gold(a, b), NewQuestion(kind="rank", purpose="gold", images=(a, b, c), round=None, gold_answer=answer)]
    )
    assert store.questions.expected() == {first: Answer(outcome="win", winner=a), second: answer}


def test_questions_come_by_priority_then_in_the_order_they_were_asked(store: Store) -> None:
    ((a, b, c), _) = fill(store)
    late, middle, soon = store.questions.ask([pair(a, b, priority=2.0), pair(a, c, priority=1.0), pair(b, c, priority=1.0)])
    assert [one.question for one in store.questions.lease(human(store, "ada"), 3)] == [middle, soon, late]


def test_a_leased_question_says_all_that_is_shown(store: Store) -> None:
    (_, (a, b, _)) = fill(store)
    (question,) = store.questions.ask([pair(a, b)])
    (assigned,) = store.questions.lease(human(store, "ada"), 4, lease_seconds=60.0)
    assert (assigned.question, assigned.kind, assigned.purpose, assigned.prompt) == (question, "pair", "train", "prompt 1 of round 0")
    assert sorted(assigned.shown) == [a, b]
    assert 0 <= store.now() + 60_000 - assigned.lease_expires_at < 60_000


def test_the_order_shown_is_drawn_by_the_server(store: Store) -> None:
    images = fill(store, prompts=40, images=2)
    store.questions.ask(pairs(images))
    shown = [one.shown[0] < one.shown[1] for one in store.questions.lease(human(store, "ada"), 40)]
    assert len(shown) == 40
    assert 4 < sum(shown) < 36  # fails by chance once in 3 million


def test_a_refresh_brings_the_same_questions_in_the_same_order_and_renews_their_leases(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.questions.ask(pairs(fill(store)))
    ada = human(store, "ada")
    first = store.questions.lease(ada, 3)
    let_time_pass(store, monkeypatch, 5)
    again = store.questions.lease(ada, 4)
    assert [(one.assignment, one.shown) for one in again[:3]] == [(one.assignment, one.shown) for one in first]
    assert all(new.lease_expires_at >= old.lease_expires_at + 5000 for old, new in zip(first, again, strict=False))
    assert len(again) == 4


def test_two_annotators_never_hold_the_same_slot(store: Store) -> None:
    store.questions.ask(pairs(fill(store)))
    ada, bob = (store.questions.lease(human(store, name), 4) for name in ("ada", "bob"))
    assert len(ada) == 4
    assert len(bob) == 2
    assert {one.question for one in ada}.isdisjoint(one.question for one in bob)


def test_overlap_puts_a_question_to_so_many_people_and_no_more(store: Store) -> None:
    store.questions.ask(pairs(fill(store), overlap=3))
    counts = Counter(one.question for name in "abcde" for one in store.questions.lease(human(store, name), 10))
    assert set(counts.values()) == {3}
    assert open_slots(store) == [0] * 6


def test_an_answered_question_does_not_come_again(store: Store) -> None:
    store.questions.ask(pairs(fill(store), overlap=2))
    ada = human(store, "ada")
    answered = []
    while batch := store.questions.lease(ada, 4):
        answered += [one.question for one in batch]
        for one in batch:
            vote(store, one, ada)
    assert len(answered) == len(set(answered)) == 6
    assert open_slots(store) == [1] * 6


def test_expired_leases_of_others_are_given_away(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.questions.ask(pairs(fill(store)))
    ada, bob = human(store, "ada"), human(store, "bob")
    lost = store.questions.lease(ada, 6, lease_seconds=60.0)
    assert store.questions.lease(bob, 6) == []
    let_time_pass(store, monkeypatch, 61)
    assert {one.question for one in store.questions.lease(bob, 6)} == {one.question for one in lost}
    assert store.questions.lease(ada, 6) == []


def test_a_lease_that_expired_is_the_annotators_own_as_long_as_nobody_took_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.questions.ask(pairs(fill(store)))
    ada = human(store, "ada")
    before = store.questions.lease(ada, 2, lease_seconds=60.0)
    let_time_pass(store, monkeypatch, 3600)
    assert [one.assignment for one in store.questions.lease(ada, 2)] == [one.assignment for one in before]


def test_a_question_lost_unanswered_comes_again_in_the_same_order_if_it_is_still_open(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((a, b, _), _) = fill(store)
    store.questions.ask([pair(a, b, overlap=2)])
    ada, bob = human(store, "ada"), human(store, "bob")
    (before,) = store.questions.lease(ada, 1, lease_seconds=60.0)
    let_time_pass(store, monkeypatch, 61)
    store.questions.lease(bob, 1)
    (again,) = store.questions.lease(ada, 1)
    assert (again.assignment, again.shown) == (before.assignment, before.shown)
    assert open_slots(store) == [0]


def test_a_closed_round_is_put_to_nobody_and_its_leases_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.questions.ask(pairs(fill(store), overlap=2))
    store.questions.ask(pairs(fill(store, round=1), round=1))
    ada = human(store, "ada")
    (first, *_) = store.questions.lease(ada, 6)
    assert first.prompt.endswith("round 0")
    store.questions.close(0)
    assert {one.prompt[-7:] for one in store.questions.lease(ada, 20)} == {"round 1"}
    let_time_pass(store, monkeypatch, 1e6)
    assert {one.prompt[-7:] for one in store.questions.lease(human(store, "bob"), 20)} == {"round 1"}
    assert open_slots(store)[:6] == [0] * 6


def blind(a: int, b: int, round: int | None) -> NewQuestion:
    return NewQuestion(kind="pair", purpose="blind", images=(a, b), round=round)


def test_closing_a_round_closes_its_blind_questions_and_leaves_those_of_no_round(store: Store) -> None:
    ((a, b, c), _) = fill(store)
    store.questions.ask([pair(a, b), blind(a, b, 0), blind(a, c, 1)])
    (of_none,) = store.questions.ask([blind(b, c, None)])
    store.questions.close(0)
    store.questions.close(1)
    assert [one.question for one in store.questions.lease(human(store, "ada"), 9)] == [of_none]


def test_a_blind_test_is_ended_whoever_has_its_questions_in_front_of_them(store: Store) -> None:
    ((a, b, c), _) = fill(store)
    ids = store.questions.ask([blind(a, b, None), blind(b, c, 3), blind(a, c, None)])
    store.questions.ask([pair(a, b)])
    ada = human(store, "ada")
    first, *_ = store.questions.lease(ada, 2)
    vote(store, first, ada)
    assert store.questions.awaited(ids) == 2, "one leased, one open"
    store.questions.close_blind()
    assert store.questions.awaited(ids) == 0
    assert [one.purpose for one in store.questions.lease(human(store, "bob"), 9)] == ["train"]


def test_what_was_asked_is_known_and_asked_no_more_by_that(store: Store) -> None:
    ((a, b, c), _) = fill(store)
    (id,) = store.questions.ask([blind(a, b, None)])
    store.questions.close_blind()
    assert store.questions.known([blind(b, a, None), blind(a, c, None)]) == [id]
    assert store.questions.awaited([id]) == 0


def test_a_blind_question_of_a_trained_round_is_asked_of_nobody_else_when_its_lease_runs_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((a, b, c), _) = fill(store)
    ada = human(store, "ada")
    store.questions.ask([pair(a, b), blind(a, c, 0)])
    items = {item.purpose: item for item in store.questions.lease(ada, 2)}
    votes = {purpose: vote(store, item, ada) for purpose, item in items.items()}
    store.batches.claim(0)
    store.votes.retract(str(uuid.uuid4()), votes["blind"].vote, ada)
    let_time_pass(store, monkeypatch, 1e6)
    assert store.questions.lease(human(store, "bob"), 9) == []


def test_every_so_many_questions_one_is_gold(store: Store) -> None:
    images = fill(store, prompts=40, images=2)
    store.questions.ask(pairs(images[:30]) + [gold(a, b) for a, b in images[30:]])
    ada, purposes = human(store, "ada"), []
    for _ in range(8):
        (*batch,) = store.questions.lease(ada, 4, gold_rate=0.25)
        purposes += [one.purpose for one in batch]
        for one in batch:
            vote(store, one, ada)
    assert purposes.count("gold") == 8


def test_gold_questions_are_seen_once_and_then_only_others_come(store: Store) -> None:
    images = fill(store, prompts=6, images=2)
    store.questions.ask([*pairs(images[:5]), gold(*images[5])])
    ada, bob = human(store, "ada"), human(store, "bob")
    purposes = Counter(one.purpose for one in store.questions.lease(ada, 6, gold_rate=1.0))
    assert purposes == {"gold": 1, "train": 5}
    assert [one.purpose for one in store.questions.lease(bob, 6, gold_rate=1.0)] == ["gold"]


def test_without_a_rate_no_gold_question_comes(store: Store) -> None:
    ((a, b), (c, d)) = fill(store, prompts=2, images=2)
    store.questions.ask([pair(a, b), gold(c, d)])
    assert [one.purpose for one in store.questions.lease(human(store, "ada"), 9)] == ["train"]


def test_what_was_put_to_somebody_is_found_by_them_alone(store: Store) -> None:
    store.questions.ask(pairs(fill(store)))
    ada, bob = human(store, "ada"), human(store, "bob")
    (assigned,) = store.questions.lease(ada, 1)
    assert store.questions.assigned(assigned.assignment, ada) == assigned
    assert store.questions.assigned(assigned.assignment, bob) is None
    assert store.questions.assigned("0" * 36, ada) is None
    vote(store, assigned, ada)
    assert store.questions.assigned(assigned.assignment, ada) == assigned


def test_progress_counts_answers_leases_and_what_is_open(store: Store) -> None:
    store.questions.ask(pairs(fill(store), overlap=2))
    store.questions.ask(pairs(fill(store, round=1), round=1))
    ada = human(store, "ada")
    first, second, *_ = store.questions.lease(ada, 3)
    vote(store, first, ada)
    vote(store, second, ada)
    progress = store.questions.progress(round=0)
    assert (progress.wanted, progress.done, progress.leased, progress.open, progress.left) == (12, 2, 1, 9, 10)
    assert store.questions.progress().wanted == 18
    mine = store.questions.progress(annotator=ada)
    assert (mine.wanted, mine.done, mine.leased, mine.open, mine.left) == (12, 2, 1, 9, 10)
    assert store.questions.progress(annotator=ada, round=0).open == 3
    assert store.questions.progress(annotator=human(store, "bob")).left == 12


def test_a_question_a_rule_brought_along_is_opened_once_people_are_asked_it(store: Store) -> None:
    ((a, b, _), _) = fill(store)
    rule = store.people.annotator("reward:size", "rule")
    store.votes.record_judgements(rule.id, [(pair(a, b), Answer(outcome="win", winner=a))])
    ada = human(store, "ada")
    assert store.questions.lease(ada, 1) == []
    store.questions.ask([pair(a, b, overlap=2)])
    (assigned,) = store.questions.lease(ada, 1)
    vote(store, assigned, ada, prefers_left(assigned))
    assert open_slots(store) == [1]
    store.questions.ask([pair(a, b, overlap=2)])
    assert open_slots(store) == [1]
    assert store.votes.count() == 2


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_whatever_happens_slots_and_open_slots_add_up_to_the_overlap(data: st.DataObject, sqlite_template: Path) -> None:
    """Leases, votes, late votes, withdrawals and passing time in any order; the table's constraints see to the rest."""
    path = sqlite_template.with_name(f"{uuid.uuid4()}.db")
    shutil.copy(sqlite_template, path)
    store = Store(file_address(path))
    clock = [store.now()]
    store.database.now = lambda: clock[0]  # type: ignore[method-assign]
    ((a, b, c),) = fill(store, prompts=1)
    store.questions.ask([pair(a, b, overlap=2), pair(a, c, overlap=1), pair(b, c, overlap=3)])
    people = [human(store, name) for name in "abc"]
    shown, cast = {person: {} for person in people}, []
    for _ in range(data.draw(st.integers(1, 25))):
        person = data.draw(st.sampled_from(people))
        match data.draw(st.sampled_from(["lease", "vote", "vote", "retract", "wait"])):
            case "lease":
                shown[person] |= {one.question: one for one in store.questions.lease(person, 2, lease_seconds=10.0)}
            case "vote" if shown[person]:
                one = shown[person][data.draw(st.sampled_from(sorted(shown[person])))]
                cast.append((vote(store, one, person).vote, person))
            case "retract" if cast:
                store.votes.retract(str(uuid.uuid4()), *data.draw(st.sampled_from(cast)), lease_seconds=10.0)
            case _:
                clock[0] += data.draw(st.integers(1, 20_000))
        with store.database.reading() as connection:
            held = connection.exec_driver_sql(
                "SELECT overlap - open_slots - (SELECT count(*) FROM assignment WHERE question_id = question.id "
                "AND overlap_slot IS NOT NULL) FROM question"
            )
            assert set(held.scalars()) == {0}
    standing = {(one.question, one.annotator) for one in store.votes.current()}
    assert len(standing) == store.votes.count()
    store.close()
