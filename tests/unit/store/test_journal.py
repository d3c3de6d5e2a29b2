"""What trainer and dashboard tell each other, and the log of what administrators did."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from d3po.store import ControlState, Store


def test_what_the_trainer_says_is_read_in_order(store: Store) -> None:
    store.journal.write("phase", 0, {"phase": "sampling"})
    store.journal.write("alarm", 0, {"message": "KL is 12"})
    store.journal.write("phase", 1, {"phase": "training", "numbers": [1, 2.5, None]})
    entries = store.journal.read()
    assert [(entry.kind, entry.round, dict(entry.body)) for entry in entries] == [
        ("phase", 0, {"phase": "sampling"}),
        ("alarm", 0, {"message": "KL is 12"}),
        ("phase", 1, {"phase": "training", "numbers": [1, 2.5, None]}),
    ]
    assert [entry.round for entry in store.journal.read(kind="phase")] == [0, 1]
    assert store.journal.read(after=entries[1].id) == entries[2:]
    assert store.journal.read(limit=1) == entries[:1]
    assert store.journal.last("phase") == entries[2]
    assert store.journal.last("update") is None
    assert [entry.at for entry in entries] == sorted(entry.at for entry in entries)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([], ControlState()),
        (["pause"], ControlState(paused=True)),
        (["pause", "resume"], ControlState()),
        (["pause", "stop"], ControlState(stop=True)),
        (["stop", "resume"], ControlState()),
        (["pause", "train_now"], ControlState(paused=True, train_now_round=3)),
    ],
)
def test_the_newest_word_to_the_trainer_counts(store: Store, told: list[Any], expected: ControlState) -> None:
    owner = store.people.owner().id
    for action in told:
        store.journal.control(action, owner, 3 if action == "train_now" else None)
    assert store.journal.current_control() == expected


def test_the_newest_train_now_counts(store: Store) -> None:
    owner = store.people.owner().id
    store.journal.control("train_now", owner, 0)
    store.journal.control("train_now", owner, 1)
    assert store.journal.current_control().train_now_round == 1


def test_the_audit_log_is_whole_and_says_who_did_what(store: Store) -> None:
    assert store.audit.verify()
    for number in range(3):
        store.audit.append("ada", "invite", {"handle": f"person {number}", "role": "annotator"})
    newest, before = store.audit.newest(2)
    assert (newest.actor, newest.action, dict(newest.detail)) == ("ada", "invite", {"handle": "person 2", "role": "annotator"})
    assert newest.previous_hash == before.hash
    assert store.audit.verify()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit_log SET actor = 'eve' WHERE id = 2",
        "UPDATE audit_log SET at = at + 1 WHERE id = 1",
        "UPDATE audit_log SET detail = '{}' WHERE id = 3",
        "DELETE FROM audit_log WHERE id = 2",
    ],
)
def test_a_changed_or_missing_audit_entry_breaks_the_chain(store: Store, change: str) -> None:
    for number in range(3):
        store.audit.append("ada", "control", {"number": number})
    with store.database.transaction() as connection:
        if store.database.is_postgresql:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
        else:
            connection.execute(text(f"DROP TRIGGER audit_log_no_{change.split()[0].lower()}"))
        connection.execute(text(change))
    assert not store.audit.verify()


def test_administrators_at_once_make_one_chain(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.audit.append(f"admin {number}", "revoke", {}), range(24)))
    assert store.audit.verify()
    assert len({entry.previous_hash for entry in store.audit.newest(99)}) == 24
