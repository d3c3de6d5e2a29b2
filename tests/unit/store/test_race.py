"""Many at once: nothing lost, nothing doubled, nothing put to somebody's name who did not say it, nobody asked beyond what was wanted.

`D3PO_RACE=24x120` runs the race with 24 annotators and 120 questions instead of the suite's small one; docs/reliability.md has its figures.
"""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import select

from d3po.store import Store
from d3po.store.casting import record_event
from d3po.store.tables import AssignmentRow, FeedbackBatchVoteRow, QuestionRow, VoteItemRow, VoteRow
from tests.unit.store.racing import Claim, Event, Racer, claim_twice
from tests.unit.store.stores import cast, fill, human, pairs

ANNOTATORS, QUESTIONS = map(int, os.environ.get("D3PO_RACE", "8x30").split("x"))
OVERLAP = 3
KILLS = 6 if "D3PO_RACE" in os.environ else 2


def test_a_race_of_annotators_and_trainers_loses_and_doubles_nothing(store: Store, url: str) -> None:
    for round in (0, 1):
        store.questions.ask(pairs(fill(store, prompts=QUESTIONS // 2, images=2, round=round), round=round, overlap=OVERLAP))
    began = time.monotonic()
    with opened(store, url, ANNOTATORS) as stores, opened(store, url, 2) as trainers:
        racers = [Racer(mine, human(store, f"annotator {number}"), seed=number) for number, mine in enumerate(stores)]
        claims = race(racers, trainers, store)
    seconds = time.monotonic() - began
    logs = [racer.log for racer in racers]
    assert [mistake for log in logs for mistake in log.mistakes] == []
    sent = {event.id: event for log in logs for event in log.events}
    assert_every_event_is_stored_once_as_it_was_sent(store, sent)
    assert_what_stands_is_what_each_annotator_said_last(store, racers)
    extra = assert_nobody_was_asked_beyond_the_overlap(store)
    for round, claim in enumerate(claims):
        assert_both_trainers_got_all_there_was(store, claim, round, sent)
    standing = store.votes.count()
    print(
        f"{ANNOTATORS} annotators, {QUESTIONS} questions: {len(sent)} events, {standing} standing, {extra} beyond the overlap, {seconds:.1f} s"
    )


def race(racers: list[Racer], trainers: list[Store], store: Store) -> list[Claim]:
    """Let them run; round 0 is claimed in the middle, round 1 when its questions are answered."""
    stop = threading.Event()
    with ThreadPoolExecutor(len(racers)) as pool:
        running = [pool.submit(racer.run, stop) for racer in racers]
        wait_until(lambda: store.votes.count(round=0) >= QUESTIONS // 2 * (OVERLAP - 1), running)
        middle = claim_twice((trainers[0], trainers[1]), 0)
        wait_until(lambda: store.questions.progress(round=1).left == 0, running)
        stop.set()
        for one in running:
            one.result()
    return [middle, claim_twice((trainers[1], trainers[0]), 1)]


def wait_until(done: Callable[[], bool], running: list[Future[None]]) -> None:
    deadline = time.monotonic() + (15 if "D3PO_RACE" not in os.environ else 600)
    while not done() and time.monotonic() < deadline and not any(one.done() for one in running):
        time.sleep(0.02)


@contextmanager
def opened(store: Store, url: str, count: int) -> Generator[list[Store], None, None]:
    """A store each on PostgreSQL, as several servers would have; on SQLite, which has one server, every eighth a store of its own."""
    stores = [Store(url) if store.database.is_postgresql or number % 8 == 0 else store for number in range(count)]
    try:
        yield stores
    finally:
        for one in stores:
            if one is not store:
                one.close()


def assert_every_event_is_stored_once_as_it_was_sent(store: Store, sent: dict[str, Event]) -> None:
    with store.database.reading() as connection:
        rows = connection.execute(select(VoteRow.id, VoteRow.question_id, VoteRow.annotator_id, VoteRow.outcome, VoteRow.winner_id)).all()
        items = connection.execute(select(VoteItemRow.vote_id, VoteItemRow.image_id, VoteItemRow.value)).all()
    stored = {row.id: (row.question_id, row.annotator_id, row.outcome, row.winner_id) for row in rows}
    logged = {
        event.id: (event.question, event.annotator, event.answer and event.answer.outcome, event.answer and event.answer.winner)
        for event in sent.values()
    }
    assert len(rows) == len(stored)
    assert stored.keys() == logged.keys()
    assert digest(stored) == digest(logged)
    values = {(event.id, image): value for event in sent.values() if event.answer for image, value in event.answer.values.items()}
    assert {(item.vote_id, item.image_id): item.value for item in items} == values


def digest(events: Mapping[str, object]) -> str:
    return hashlib.sha256(repr(sorted(events.items())).encode()).hexdigest()


def assert_what_stands_is_what_each_annotator_said_last(store: Store, racers: list[Racer]) -> None:
    standing = {(vote.question, vote.annotator): vote.id for vote in store.votes.current()}
    assert len(standing) == store.votes.count()
    for racer in racers:
        for question, allowed in racer.log.standing.items():
            found = standing.pop((question, racer.annotator), None)
            assert found in allowed if allowed else found is None
    assert standing == {}, "votes that nobody remembers"


def assert_nobody_was_asked_beyond_the_overlap(store: Store) -> int:
    """Returns how many votes were kept though their lease was lost and their slot given away."""
    with store.database.reading() as connection:
        assignments = connection.execute(select(*AssignmentRow.__table__.columns)).all()
        questions = connection.execute(select(QuestionRow.id, QuestionRow.open_slots)).all()
    assert len({(row.question_id, row.annotator_id) for row in assignments}) == len(assignments)
    slots = [(row.question_id, row.overlap_slot) for row in assignments if row.overlap_slot is not None]
    assert len(set(slots)) == len(slots)
    held = Counter(question for question, _ in slots)
    assert max(held.values()) <= OVERLAP
    assert {slot for _, slot in slots} <= set(range(OVERLAP))
    assert all(held[row.id] + row.open_slots <= OVERLAP for row in questions)
    return sum(row.overlap_slot is None and row.state == "answered" for row in assignments)


def assert_both_trainers_got_all_there_was(store: Store, claim: Claim, round: int, sent: dict[str, Event]) -> None:
    first, second = claim.batches
    assert first == second == store.batches.votes(round)
    ids = {vote.id for vote in first}
    assert len(ids) == len(first) > 0
    with store.database.reading() as connection:
        superseded = dict(connection.execute(select(VoteRow.supersedes, VoteRow.id).where(VoteRow.supersedes.is_not(None))).all())
        rounds = dict(connection.execute(select(QuestionRow.id, QuestionRow.round)).all())
        assert len(ids - set(connection.execute(select(FeedbackBatchVoteRow.vote_id)).scalars())) == 0
    for event in sent.values():
        if event.answer is None or rounds[event.question] != round or event.told_at >= claim.began:
            continue
        follower = sent.get(superseded.get(event.id, ""))
        if follower is None or follower.sent_at > claim.ended:
            assert event.id in ids, f"a vote acknowledged before the claim is missing from it: {event}"
    assert all(sent[id].sent_at < claim.ended and rounds[sent[id].question] == round for id in ids)


def test_a_vote_that_commits_late_is_claimed_though_a_later_number_is_there_already(postgresql_store: Store) -> None:
    """PostgreSQL hands out numbers before commits; whoever reads on from the newest number it saw would miss this vote."""
    store = postgresql_store
    store.questions.ask(pairs(fill(store)))
    (early,), (late,) = (store.questions.lease(human(store, name), 1) for name in ("ada", "bob"))
    first, second = cast(early, 1), cast(late, 2)
    with store.database.transaction() as connection:
        record_event(connection, first, store.now(), 0)
        store.votes.cast(second)
        (seen,) = store.votes.current()
    assert list(store.votes.current(after=seen.sequence)) == []
    assert {vote.id for vote in store.batches.claim(0)} == {first.id, second.id}


CLIENT = """
import sys
from pathlib import Path
from d3po.store import Store
from d3po.store.casting import record_event
from tests.unit.store.stores import cast

store, ada = Store(sys.argv[1]), int(sys.argv[2])
for assigned in store.questions.lease(ada, 10_000):
    sent = cast(assigned, ada)
    print("sent", sent.id, flush=True)
    store.votes.cast(sent)
    print("told", sent.id, flush=True)
"""


def test_a_killed_process_loses_no_vote_that_it_was_told_of(store: Store, url: str) -> None:
    store.questions.ask(pairs(fill(store, prompts=60, images=4)))
    ada, told, sent = human(store, "ada"), set(), set()
    for kill in range(KILLS):
        command = [sys.executable, "-c", CLIENT, url, str(ada)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as process:
            assert process.stdout is not None
            for line in process.stdout:
                word, id = line.split()
                (told if word == "told" else sent).add(id)
                if len(told) >= 20 * (kill + 1):
                    process.send_signal(signal.SIGKILL)
        stored = {vote.id for vote in store.votes.current()}
        assert told <= stored <= sent
    assert len(told) >= 20 * KILLS
