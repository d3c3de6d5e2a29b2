"""`python -m benchmarks.store [--votes 1000000] [--url postgresql://...]`: the speed of the store when a run has very many votes.

Builds a database of that size in a temporary folder (or in the given empty PostgreSQL database), measures, and prints a Markdown table, as in
docs/reliability.md. Times are of this machine; other work on it makes them longer.
"""

import argparse
import itertools
import queue
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy import Connection, text

from d3po.preferences.records import Answer, Assigned, Cast, NewQuestion
from d3po.store import NewPicture, Store

ROUND = 5000
"""Questions in a round."""
OVERLAP = 20
ANNOTATORS = 100
PER_PROMPT = 8
SHARD = "INSERT INTO shard (round, number, path, checksum) VALUES (0, 0, 'none', '')"
SERIES = {
    "sqlite": "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) SELECT i FROM n)",
    "postgresql": "generate_series(1, {count}) AS n(i)",
}
UUID = {
    "sqlite": "lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4000-8000-' || hex(randomblob(6)))",
    "postgresql": "gen_random_uuid()::text",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store", description="Measure the store on this machine.")
    parser.add_argument("--votes", type=int, default=1_000_000, help="votes in the store beforehand (default: 1 000 000)")
    parser.add_argument("--url", help="an empty PostgreSQL database; default: an SQLite file in a temporary folder")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long votes are cast for each figure of votes a second (default: 5)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="d3po-store-") as folder:
        url = arguments.url or f"sqlite:///{Path(folder) / 'd3po.db'}"
        began = time.perf_counter()
        fill(url, arguments.votes)
        print(f"{arguments.votes:,} votes made in {time.perf_counter() - began:.0f} s", flush=True)
        print("| what | figure |\n|---|---|")
        for what, figure in measure(url, arguments.seconds):
            print(f"| {what} | {figure} |", flush=True)


def fill(url: str, votes: int) -> None:
    """Make closed rounds with this many votes, and one open round without votes."""
    store = Store(url)
    prompts = store.pictures.add_prompts([f"prompt {number}" for number in range(ROUND)])
    store.pictures.add_pictures(
        series="bench", origin="imported", model="none", policy="", seed=None,
        pictures=[
            NewPicture(prompt=prompt, number=number, path=f"{prompt}/{number}.png", sha256="0" * 64)
            for prompt in prompts
            for number in range(PER_PROMPT)
        ],
    )  # fmt: skip
    for number in range(ANNOTATORS):
        store.people.annotator(f"annotator {number}", "human")
    with store.database.transaction() as connection:
        for statement in history(connection, votes):
            connection.execute(text(statement))
    if store.database.is_postgresql:
        with store.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
    open_round(store)
    store.close()


def history(connection: Connection, votes: int) -> Iterator[str]:
    """Yield the SQL statements that make questions with one vote each, in the state that trained rounds leave."""
    kind = connection.dialect.name
    series, key = SERIES[kind].format(count=votes), UUID[kind]
    first = f"((i % {ROUND}) * {PER_PROMPT} + 1)"
    yield (
        "INSERT INTO question (kind, purpose, prompt_id, round, dedup_key, overlap, open_slots, priority) "
        f"SELECT 'pair', 'train', (i % {ROUND}) + 1, i / {ROUND}, 'bench-' || i, 1, 0, 0 FROM {series}"
    )
    for slot in (0, 1):
        yield f"INSERT INTO question_image (question_id, slot, image_id) SELECT i, {slot}, {first} + {slot} FROM {series}"
    shown = f"'[' || {first} || ',' || ({first} + 1) || ']'"
    shown = f"({shown})::json" if kind == "postgresql" else shown
    yield (
        "INSERT INTO assignment (id, question_id, annotator_id, overlap_slot, shown, state, created_at, lease_expires_at) "
        f"SELECT {key}, i, (i % {ANNOTATORS}) + 1, 0, {shown}, 'answered', i, i FROM {series}"
    )
    yield (
        "INSERT INTO vote (id, sequence, assignment_id, question_id, annotator_id, action, outcome, winner_id, rt_ms, payload_hash, received_at) "
        f"SELECT {key}, a.question_id, a.id, a.question_id, a.annotator_id, 'cast', 'win', q.image_id, 900, 'none', a.created_at "
        "FROM assignment a JOIN question_image q ON q.question_id = a.question_id AND q.slot = 0"
    )
    if kind == "postgresql":
        yield f"SELECT setval('vote_sequence', {votes})"


def open_round(store: Store) -> None:
    pictures = store.pictures.series("bench")
    by_prompt = [[picture.id for picture in group] for _, group in itertools.groupby(pictures, key=lambda picture: picture.prompt_id)]
    store.questions.ask(
        [NewQuestion(kind="pair", purpose="train", images=(ids[2], ids[3]), round=10_000, overlap=OVERLAP) for ids in by_prompt]
    )


def measure(url: str, seconds: float) -> Iterator[tuple[str, str]]:
    opened = [timed(lambda: Store(url).close()) for _ in range(5)]
    yield "opening the store", milliseconds(opened)
    store = Store(url)
    people = [store.people.annotator(f"annotator {number}", "human").id for number in range(ANNOTATORS)]
    leases = [timed(lambda who=who: store.questions.lease(who, 4)) for who in people[:20] for _ in range(10)]
    yield f"lease of 4 questions, {ROUND:,} open ones, overlap {OVERLAP}", milliseconds(leases)
    late = people[20]
    answer_all(store, late, share=0.9)
    yield "lease of 4 questions to an annotator who has answered 90 % of the open ones", milliseconds(list(refreshed(store, late)))
    yield "progress of an annotator", milliseconds([timed(lambda: store.questions.progress(annotator=people[0])) for _ in range(10)])
    for clients in (1, 8, 64):
        yield f"votes a second, {clients} clients, group commit", grouped(store, people[21:], clients, seconds)
    yield "votes a second, 8 clients, a commit each", single(store, people[21:], seconds)
    yield "counting all votes", milliseconds([timed(store.votes.count) for _ in range(3)])
    yield "reading all votes", f"{store.votes.count() / timed(lambda: sum(1 for _ in store.votes.current())):,.0f} a second"
    yield "claiming a round", milliseconds([timed(lambda: store.batches.claim(10_000))])
    yield "claiming it again", milliseconds([timed(lambda: store.batches.claim(10_000)) for _ in range(3)])
    store.close()


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def milliseconds(times: list[float]) -> str:
    if len(times) < 10:
        return f"{1000 * statistics.median(times):,.1f} ms"
    return f"{1000 * statistics.median(times):,.1f} ms (95 % under {1000 * sorted(times)[int(0.95 * len(times))]:,.1f})"


def answer_all(store: Store, annotator: int, *, share: float) -> None:
    for _ in range(int(share * ROUND / 500)):
        store.votes.cast_many([ballot(one, annotator) for one in store.questions.lease(annotator, 500)])


def refreshed(store: Store, annotator: int) -> Iterator[float]:
    """Lease and answer in turn, and yield the seconds of each lease."""
    for _ in range(50):
        began = time.perf_counter()
        assigned = store.questions.lease(annotator, 4)
        yield time.perf_counter() - began
        store.votes.cast_many([ballot(one, annotator) for one in assigned])


class Committer:
    """One thread that records all waiting votes in one commit, as the rating server does."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: queue.SimpleQueue[tuple[Cast, threading.Event] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def cast(self, vote: Cast) -> None:
        """Record a vote, and return when it is on disk."""
        done = threading.Event()
        self._waiting.put((vote, done))
        done.wait()

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            group = [first]
            while not self._waiting.empty() and (more := self._waiting.get()) is not None:
                group.append(more)
            self._store.votes.cast_many([vote for vote, _ in group])
            for _, done in group:
                done.set()


def grouped(store: Store, people: list[int], clients: int, seconds: float) -> str:
    """Votes a second of `clients` clients, which each wait for their receipts, with group commit."""
    committer = Committer(store)
    try:
        return rate(store, people[:clients], seconds, committer.cast)
    finally:
        committer.close()


def single(store: Store, people: list[int], seconds: float) -> str:
    """Votes a second of eight clients, with a transaction for each vote."""
    return rate(store, people[:8], seconds, store.votes.cast)


def rate(store: Store, people: list[int], seconds: float, cast: Callable[[Cast], object]) -> str:
    ready = {who: [ballot(one, who) for one in store.questions.lease(who, 3 * ROUND // len(people))] for who in people}
    deadline = time.perf_counter() + seconds

    def send(who: int) -> int:
        return sum(1 for vote in ready[who] if time.perf_counter() < deadline and (cast(vote) or True))

    began, worked = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(len(people)) as pool:
        count = sum(pool.map(send, people))
    cost = 1000 * (time.process_time() - worked) / count
    return f"{count / (time.perf_counter() - began):,.0f} (CPU {cost:.2f} ms a vote, clients included)"


def ballot(assigned: Assigned, annotator: int) -> Cast:
    answer = Answer(outcome="win", winner=assigned.shown[0])
    return Cast(id=str(uuid.uuid4()), assignment=assigned.assignment, annotator=annotator, answer=answer, rt_ms=900, client="bench")


if __name__ == "__main__":
    main()
