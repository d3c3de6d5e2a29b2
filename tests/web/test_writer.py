"""The writer thread: one commit for what waits together, nothing acknowledged before, and plain words when the store is away."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import pytest
from sqlalchemy import event
from starlette.testclient import TestClient

from d3po.errors import StorageError, VoteConflictError, VoteError
from d3po.preferences.records import Answer, Cast
from d3po.store import Receipt, Retract, Store
from d3po.store.database import file_address
from d3po.web.app import create_app
from d3po.web.writer import Writer
from tests.web.conftest import HERE, House, Serve, sign_in
from tests.web.test_label_api import ballot, questions
from tests.web.world import ask

Result = TypeVar("Result")


class Sink:
    """Stands in for the store: notes what it is given, commits when let, and may fail."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.open = threading.Event()
        self.open.set()
        self.failure: Exception | None = None

    def cast_many(self, casts: Sequence[Cast | Retract], *, lease_seconds: float) -> list[Receipt | VoteError]:
        self.open.wait()
        self.batches.append(len(casts))
        if self.failure is not None:
            raise self.failure
        return [VoteConflictError("used") if cast.id == "used" else Receipt(vote=cast.id, status="new", assignment="a") for cast in casts]


def cast(name: str) -> Cast:
    return Cast(id=name, assignment="a", annotator=1, answer=Answer(outcome="tie"))


@pytest.fixture
def sink() -> Sink:
    return Sink()


def with_writer(sink: Sink, work: Callable[[Writer], Coroutine[Any, Any, Result]], *, patience: float = 5.0) -> Result:
    writer = Writer(sink, patience=patience, lease_seconds=60.0)
    try:
        return asyncio.run(work(writer))
    finally:
        sink.open.set()
        writer.close()


def test_votes_that_wait_together_share_one_commit(sink: Sink) -> None:
    async def work(writer: Writer) -> list[Receipt]:
        sink.open.clear()
        first = asyncio.create_task(writer.record(cast("first")))
        await asyncio.sleep(0.1)
        others = [asyncio.create_task(writer.record(cast(f"v{i}"))) for i in range(50)]
        await asyncio.sleep(0.1)
        assert not first.done()
        sink.open.set()
        return list(await asyncio.gather(first, *others))

    receipts = with_writer(sink, work)
    assert [receipt.vote for receipt in receipts] == ["first", *(f"v{i}" for i in range(50))]
    assert sink.batches == [1, 50]


def test_a_refused_vote_does_not_harm_its_neighbours(sink: Sink) -> None:
    async def work(writer: Writer) -> list[Any]:
        sink.open.clear()
        waiting = [asyncio.create_task(writer.record(cast(name))) for name in ("a", "used", "b")]
        await asyncio.sleep(0.1)
        sink.open.set()
        return list(await asyncio.gather(*waiting, return_exceptions=True))

    one, refused, two = with_writer(sink, work)
    assert isinstance(refused, VoteConflictError)
    assert (one.vote, two.vote) == ("a", "b")


def test_nobody_waits_for_ever_for_a_store_that_hangs(sink: Sink) -> None:
    sink.open.clear()

    async def work(writer: Writer) -> None:
        with pytest.raises(StorageError, match="did not answer"):
            await writer.record(cast("a"))

    with_writer(sink, work, patience=0.2)


def test_a_vote_whose_sender_gave_up_before_its_turn_is_not_stored(sink: Sink) -> None:
    async def work(writer: Writer) -> None:
        sink.open.clear()
        first = asyncio.create_task(writer.record(cast("first")))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(writer.record(cast("second")))
        await asyncio.sleep(0.1)
        second.cancel()
        await asyncio.sleep(0.1)
        sink.open.set()
        await first

    with_writer(sink, work)
    assert sink.batches == [1]


def test_when_too_many_wait_the_next_is_told_to_come_back(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d3po.web.writer.MOST_WAITING", 2)

    async def work(writer: Writer) -> None:
        sink.open.clear()
        waiting = [asyncio.create_task(writer.record(cast("0")))]
        await asyncio.sleep(0.1)
        waiting += [asyncio.create_task(writer.record(cast(str(i)))) for i in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(StorageError, match="busy"):
            await writer.record(cast("3"))
        sink.open.set()
        await asyncio.gather(*waiting)

    with_writer(sink, work)


def test_closing_stores_what_still_waits(sink: Sink) -> None:
    async def work(writer: Writer) -> int:
        waiting = [asyncio.create_task(writer.record(cast(str(i)))) for i in range(20)]
        await asyncio.sleep(0)
        await asyncio.to_thread(writer.close)
        with pytest.raises(StorageError):
            await writer.record(cast("late"))
        return len(await asyncio.gather(*waiting))

    assert with_writer(sink, work) == 20


def test_a_mistake_in_one_job_does_not_end_the_thread(sink: Sink) -> None:
    async def work(writer: Writer) -> int:
        with pytest.raises(ZeroDivisionError):
            await writer.run(lambda: 1 // 0)
        sink.failure = RuntimeError("a mistake")
        with pytest.raises(RuntimeError):
            await writer.record(cast("a"))
        sink.failure = None
        await writer.record(cast("a"))
        return await writer.run(lambda: 7)

    assert with_writer(sink, work) == 7


def test_a_store_that_is_full_or_away_gets_503_and_the_same_vote_is_taken_later(
    house: House, owner: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(house.store, house.pictures)
    (item,) = questions(owner)
    sent = ballot(item, outcome="tie")

    def full(*_: object, **__: object) -> object:
        raise StorageError("cannot write /home/ada/d3po.db: the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(house.store.votes, "cast_many", full)
        reply = owner.post("/v1/votes", json=sent)
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "2")
        assert "/home" not in reply.text
        broken.setattr(house.store.questions, "lease", full)
        assert owner.get("/v1/queue").status_code == 503
    assert owner.post("/v1/votes", json=sent).status_code == 201


def test_a_full_disk_gets_503(house: House, owner: TestClient) -> None:
    ask(house.store, house.pictures)
    items = questions(owner, 12)
    with house.store.database.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    limit_pages(house, pages + 1)
    codes = [owner.post("/v1/votes", json=ballot(item, outcome="flag", reason="x" * 500)).status_code for item in items]
    assert set(codes) == {201, 503}
    assert codes == sorted(codes)
    kept = list(house.store.votes.current())
    assert len(kept) == codes.count(201)
    limit_pages(house, 10_000)
    again = owner.post("/v1/votes", json=ballot(items[-1], outcome="tie"))
    assert again.status_code == 201


def limit_pages(house: House, pages: int) -> None:
    """Let the database file grow no further, as a full disk does, on every connection from now on."""

    def limit(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    house.store.database.engine.dispose()
    event.listen(house.store.database.engine, "connect", limit)


def test_a_locked_database_gets_503_and_no_vote_is_lost(house: House, serve: Serve) -> None:
    ask(house.store, house.pictures)
    impatient = Store(file_address(house.folder / "d3po.db"), key_file=house.folder / "d3po.key", patience=0.2)
    try:
        client = serve_on(impatient, house)
        (item,) = questions(client)
        sent = ballot(item, outcome="tie")
        other = sqlite3.connect(house.folder / "d3po.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert client.post("/v1/votes", json=sent).status_code == 503
        other.execute("ROLLBACK")
        other.close()
        assert client.post("/v1/votes", json=sent).status_code == 201
        client.__exit__(None, None, None)
    finally:
        impatient.close()


def serve_on(store: Store, house: House) -> TestClient:
    client = TestClient(create_app(store, house.settings()), base_url=HERE)
    client.__enter__()
    sign_in(client, house)
    return client


def test_an_unmounted_picture_folder_is_not_the_end(house: House, serve: Serve) -> None:
    client = serve(images=str(house.folder / "away"))
    assert client.get("/v1/images/1").status_code == 404
