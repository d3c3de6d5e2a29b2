"""The database underneath: what goes wrong with the disk, the lock, the server or the clock is one line and loses nothing."""

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import event, text

from d3po.errors import StorageError
from d3po.preferences.records import Cast
from d3po.store import Store
from d3po.store.database import NETWORK_FILE_SYSTEMS, Database, address_of, file_address
from tests.postgresql import Server, start
from tests.unit.store.stores import cast, fill, human, pairs


class Partition(NamedTuple):
    """As psutil describes one."""

    mountpoint: str
    fstype: str


def test_the_clock_never_goes_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = store.now()
    monkeypatch.setattr(time, "time_ns", lambda: (before - 3_600_000) * 1_000_000)
    assert store.now() >= before
    store.questions.ask(pairs(fill(store)))
    ada = human(store, "ada")
    assigned, *rest = store.questions.lease(ada, 3, lease_seconds=60.0)
    assert assigned.lease_expires_at >= before + 60_000
    assert store.questions.lease(human(store, "bob"), 9) != []
    store.votes.cast(cast(assigned, ada))
    (vote,) = store.votes.current()
    assert vote.received_at >= before
    assert [one.assignment for one in store.questions.lease(ada, 2)] == [one.assignment for one in rest]


def test_a_clock_set_back_between_two_starts_goes_on_from_what_the_database_knows(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Store(url, key_file=tmp_path / "d3po.key")
    first.questions.ask(pairs(fill(first, prompts=1)))
    ada = human(first, "ada")
    leased = first.questions.lease(ada, 9, lease_seconds=600.0)
    secret = first.people.exchange(first.people.invite("eve", lifetime=3600.0).token) or ""
    before = first.now()
    first.close()
    running = time.monotonic_ns()
    monkeypatch.setattr(time, "time_ns", lambda: (before - 86_400_000) * 1_000_000)
    monkeypatch.setattr(time, "monotonic_ns", lambda: running)
    again = Store(url)
    assert before - 1000 < again.now() <= before
    assert again.questions.lease(human(again, "bob"), 9) == []
    running += 601 * 1_000_000_000
    assert before + 600_000 < again.now() <= before + 601_000, "it goes on, at the pace of the machine"
    assert {one.question for one in again.questions.lease(human(again, "bob"), 9)} == {one.question for one in leased}
    assert again.people.session(secret) is not None
    running += 3600 * 1_000_000_000
    assert again.people.session(secret) is None
    again.close()


KNOWN = {
    "vote": lambda store: vote_on_everything(store),
    "lease": lambda store: store.questions.lease(human(store, "ada"), 1),
    "journal": lambda store: store.journal.write("phase", 0, {"phase": "rating"}),
    "control": lambda store: store.journal.control("pause", human(store, "ada")),
    "audit_log": lambda store: store.audit.append("ada", "pause", {}),
    "token": lambda store: store.people.invite("ada"),
    "annotator": lambda store: human(store, "ada"),
    "feedback_batch": lambda store: store.batches.claim(0),
}


def vote_on_everything(store: Store) -> None:
    """Answer all there is; the vote that came last is the newest time, whoever's it is."""
    for who in ("bob", "ada"):
        for assigned in store.questions.lease(human(store, who), 1):
            store.votes.cast(cast(assigned, human(store, who)))


@pytest.mark.parametrize("what", KNOWN)
def test_the_newest_time_is_that_of_whatever_was_written_last(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    store = Store(url, key_file=tmp_path / "d3po.key")
    store.questions.ask(pairs(fill(store)))
    if what != "annotator":
        human(store, "ada")
        human(store, "bob")
    if what == "feedback_batch":
        vote_on_everything(store)  # else there is nothing to claim
    later = store.now() + 3_600_000
    monkeypatch.setattr(store.database, "now", lambda: later)
    KNOWN[what](store)
    store.close()
    again = Store(url)
    assert later <= again.now() < later + 60_000
    again.close()


def test_an_empty_database_knows_no_time(url: str) -> None:
    store = Store(url)
    assert abs(store.now() - time.time() * 1000) < 60_000
    store.close()


def test_a_full_disk_is_one_line_and_loses_nothing_acknowledged(tmp_path: Path) -> None:
    store = Store.in_folder(tmp_path)
    store.questions.ask(pairs(fill(store, prompts=20)))
    ada = human(store, "ada")
    assigned = store.questions.lease(ada, 60)
    kept = [store.votes.cast(cast(one, ada)).vote for one in assigned[:20]]
    limit_size(store)
    refused, said = list[Cast](), ""
    for one in assigned[20:]:
        sent = cast(one, ada)
        try:
            kept.append(store.votes.cast(sent).vote)
        except StorageError as error:
            said = str(error)
            refused.append(sent)
    assert refused, "the disk was never full"
    assert "the disk is full" in said
    assert "\n" not in said
    assert [one.id for one in store.votes.current()] == kept
    store.close()
    again = Store.in_folder(tmp_path)  # with a limit lifted, as after making room
    assert {again.votes.cast(sent).status for sent in refused} == {"new"}
    assert again.votes.count() == 60
    again.close()


def limit_size(store: Store) -> None:
    """Let the file grow by nothing any more: SQLite then says what it says when a disk is full."""

    def limit(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA max_page_count=1")

    event.listen(store.database.engine, "connect", limit)
    store.database.engine.dispose()


def test_a_database_locked_by_another_process_is_one_line_and_nothing_is_changed(tmp_path: Path) -> None:
    store = Store(file_address(tmp_path / "d3po.db"), patience=0.1)
    store.questions.ask(pairs(fill(store)))
    ada = human(store, "ada")
    (assigned,) = store.questions.lease(ada, 1)
    sent = cast(assigned, ada)
    other = Database(file_address(tmp_path / "d3po.db"))
    with other.transaction():
        with pytest.raises(StorageError, match="locked by another process; nothing was changed"):
            store.votes.cast(sent)
        assert store.votes.count() == 0, "readers wait for no lock"
    assert store.votes.cast(sent).status == "new"
    other.close()
    store.close()


def test_threads_of_one_process_wait_in_line_for_longer_than_patience(tmp_path: Path) -> None:
    store = Store(file_address(tmp_path / "d3po.db"), patience=0.1)
    begun = threading.Event()

    def hold() -> None:
        with store.database.transaction():
            begun.set()
            time.sleep(0.5)

    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait()
    assert store.pictures.add_prompts(["a cat"]) == [1]
    thread.join()
    store.close()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere/d3po\.db.*check that the folder exists"):
        Store.in_folder(tmp_path / "nowhere")


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "d3po.db").write_bytes(b"no database at all, only words" * 100)
    with pytest.raises(StorageError, match=r"d3po\.db is damaged or not a database"):
        Store.in_folder(tmp_path)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("d3po.db", "not a database URL"),
        ("", "not a database URL"),
        ("mysql://host/db", "works with sqlite and postgresql"),
        ("http://[", "works with sqlite and postgresql"),
        ("postgresql://ada@host:port/name", "not a database URL"),
        ("postgresql://localhost:1/name?nonsense=1", "invalid connection option"),
        ("sqlite://host/d3po.db", "three slashes before the path"),
        ("sqlite:///a?b/d3po.db", "%3F for a \\? in it"),
        ("sqlite:///a\0b", "not the URL of an SQLite file"),
        ("sqlite:///:memory:", "not the URL of an SQLite file"),
        ("sqlite://", "not the URL of an SQLite file"),
    ],
)
def test_a_url_that_cannot_be_used_is_explained(url: str, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        Store(url)


ODD = [
    "style?v1",
    "My%20Runs",
    "feature%2Fhands",
    "a b",
    "a#b",
    "a::b",
    "a:b@c",
    "file:x",
    ":memory:",
    "[a]*",
    "a'b\"c",
    "a\\b",
    "a;b&c=d",
    "狐",
]
"""Names of folders that mean something else in a URL, or look as if they did."""


@pytest.mark.parametrize("name", ODD)
def test_a_folder_has_its_own_database_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / name, Path(f"{name}.relative")):
        folder.mkdir()
        Store.in_folder(folder).close()
        assert (folder / "d3po.db").exists()
        assert Store.in_folder(folder).database.file == folder / "d3po.db"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"{name}.relative"])


def test_a_url_that_somebody_writes_is_decoded_once(tmp_path: Path) -> None:
    assert address_of("sqlite:////srv/My%20Runs/50%25%3Foff.db").database == "/srv/My Runs/50%?off.db"
    assert address_of("postgresql://ada:p%40ss@host/name").password == "p@ss"


def test_a_password_is_in_no_message() -> None:
    for url in ("postgresql://ada:secret@localhost:1/name", "postgresql://ada@localhost:1/name?password=secret"):
        with pytest.raises(StorageError, match="cannot be reached") as refused:
            Store(url)
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize("kind", sorted(NETWORK_FILE_SYSTEMS))
def test_sqlite_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    mounts = [Partition("/", "ext4"), Partition(str(shared), kind)]
    monkeypatch.setattr("psutil.disk_partitions", lambda all: mounts)
    with pytest.raises(StorageError, match=rf"network file system \({kind}\).*postgresql://"):
        Store.in_folder(shared)
    assert not (shared / "d3po.db").exists()
    Store.in_folder(tmp_path).close()


def test_a_link_into_a_network_file_system_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "shared")
    mounts = [Partition("/", "ext4"), Partition(str(tmp_path / "shared"), "nfs4")]
    monkeypatch.setattr("psutil.disk_partitions", lambda all: mounts)
    with pytest.raises(StorageError, match="network file system"):
        Store.in_folder(tmp_path / "link")


def test_two_that_open_a_new_database_at_once_both_find_the_tables(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    server: Server = request.getfixturevalue("postgresql")
    for url in (file_address(tmp_path / "d3po.db"), server.database()):
        with ThreadPoolExecutor(4) as pool:
            stores = list(pool.map(lambda url: Store(url, patience=60.0), [url] * 4))
        assert [len(store.pictures.add_prompts(["a cat"])) for store in stores] == [1] * 4
        for store in stores:
            store.close()


def test_a_transaction_that_fails_changes_nothing(store: Store) -> None:
    def fail() -> None:
        with store.database.transaction() as connection:
            connection.execute(text("INSERT INTO prompt (text, text_hash) VALUES ('a cat', 'x')"))
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail()
    assert store.pictures.prompts() == {}


def test_a_server_that_goes_away_is_one_line_and_what_was_acknowledged_is_there_when_it_is_back() -> None:
    server = start()
    if server is None:
        pytest.skip("no PostgreSQL server is installed; `python -m tools.postgresql` installs Debian's as root")
    store = Store(server.database())
    try:
        store.questions.ask(pairs(fill(store)))
        ada = human(store, "ada")
        first, second = store.questions.lease(ada, 2)
        kept, late = cast(first, ada), cast(second, ada)
        store.votes.cast(kept)
        server.stop("immediate")
        with pytest.raises(StorageError, match="cannot be reached") as failure:
            store.votes.cast(late)
        assert "\n" not in str(failure.value)
        server.start_again()
        assert store.votes.cast(kept).status == "duplicate"
        assert store.votes.cast(late).status == "new"
        assert store.votes.count() == 2
    finally:
        store.close()
        server.remove()
