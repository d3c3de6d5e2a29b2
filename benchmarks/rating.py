"""`python -m benchmarks.rating` measures the rating server: how long annotators wait for their questions and votes while a trainer reads.

It runs a real `d3po rate` (on SQLite, or with `--store` on an empty PostgreSQL database) and simulated annotators with one connection each, in threads of
this process. All are on this machine, so the annotators use part of its cores. Afterwards the store is compared with the annotators' logs: every acknowledged
vote must be in it once, with its answer and its annotator.
"""

import argparse
import hashlib
import http.client
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import psutil
from PIL import Image

from d3po.preferences.records import NewQuestion
from d3po.store import NewPicture, Store
from d3po.web.security import cookie_name
from d3po.web.settings import WebSettings

PROMPTS, IMAGES = 60, 16
URL = "http://rate.example.org"
SETTINGS = WebSettings(run="", images="", public_url=URL)
AHEAD = 4
"""Questions fetched at a time, as many as the rating page fetches."""


@dataclass
class Timings:
    """The results of a measurement."""

    votes: list[float] = field(default_factory=list)
    """Milliseconds until each vote was answered."""
    queues: list[float] = field(default_factory=list)
    """Milliseconds until each request for questions was answered."""
    refused: int = 0
    """Votes that the server did not accept."""
    log: list[tuple[str, int, int]] = field(default_factory=list)
    """Acknowledged votes: id, number of the annotator, and position of the preferred picture."""
    server_seconds: float = 0.0
    """The server's processor time during the measurement."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rating", description="Measure the rating server on this machine.")
    parser.add_argument("--annotators", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds an annotator looks before answering (default: 0, full speed)")
    parser.add_argument("--store", metavar="URL", help="an empty PostgreSQL database; default: SQLite in a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="d3po-rating-") as directory:
        run = Path(directory)
        url = arguments.store or f"sqlite:///{run / 'd3po.db'}"
        secrets = make_run(run, url, arguments.annotators)
        with subprocess.Popen(command(run, arguments.store), stdout=subprocess.PIPE, text=True) as server:
            try:
                if server.stdout is None or not server.stdout.readline():
                    parser.error("the server did not start")
                timings, claims = measure(url, server.pid, secrets, arguments.seconds, arguments.pause)
            finally:
                server.send_signal(signal.SIGTERM)
        show(timings, claims, arguments.seconds)
        compare_with_logs(url, timings.log)


def make_run(run: Path, url: str, annotators: int) -> list[str]:
    """Make a run with pictures and more questions than will be answered, in rounds of 600. Returns the annotators' session secrets."""
    (run / "run.toml").write_text("")
    (run / "images").mkdir()
    store = Store(url, key_file=run / "d3po.key")
    prompts = store.pictures.add_prompts([f"prompt {p}" for p in range(PROMPTS)])
    pictures: list[NewPicture] = []
    for prompt in prompts:
        for number in range(IMAGES):
            path, content = f"images/{prompt}-{number}.png", picture(prompt, number)
            (run / path).write_bytes(content)
            pictures.append(NewPicture(prompt=prompt, number=number, path=path, sha256=hashlib.sha256(content).hexdigest()))
    ids = store.pictures.add_pictures(series="import/benchmark", origin="imported", model="", policy="", seed=None, pictures=pictures)
    questions = [
        NewQuestion(
            kind="pair",
            purpose="train",
            images=(ids[start + a], ids[start + b]),
            round=start // (5 * IMAGES),
            overlap=1,
            priority=float(start),
        )
        for start in range(0, len(ids), IMAGES)
        for a in range(IMAGES)
        for b in range(a)
    ]
    store.questions.ask(questions)
    secrets = [store.people.exchange(store.people.invite(f"annotator-{i}").token) or "" for i in range(annotators)]
    store.close()
    return secrets


def picture(prompt: int, number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (prompt % 256, number * 16, 0)).save(file, "PNG")
    return file.getvalue()


def command(run: Path, store: str | None) -> list[str]:
    """The command of a server that asks every client for a session, as it does for people on other machines."""
    where = ["--store", store] if store else []
    return [sys.executable, "-m", "d3po", "rate", str(run), "--no-browser", "--port", "0", "--url", URL, *where]


def measure(url: str, server: int, secrets: list[str], seconds: float, pause: float) -> tuple[Timings, list[float]]:
    """Run all annotators at once, and a trainer that counts, reads and claims votes. Returns the timings, and the milliseconds of each claim."""
    process = psutil.Process(server)
    port = next(each.laddr.port for each in process.net_connections("tcp") if each.status == "LISTEN")
    timings, end, spent = Timings(), time.monotonic() + seconds, sum(process.cpu_times()[:2])
    threads = [threading.Thread(target=annotate, args=(port, number, secret, timings, end, pause)) for number, secret in enumerate(secrets)]
    for thread in threads:
        thread.start()
    claims = claim_until(url, end)
    for thread in threads:
        thread.join()
    timings.server_seconds = sum(process.cpu_times()[:2]) - spent
    return timings, claims


def annotate(port: int, number: int, secret: str, timings: Timings, end: float, pause: float) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        answer(connection, number, secret, timings, end, pause)


def answer(connection: http.client.HTTPConnection, number: int, secret: str, timings: Timings, end: float, pause: float) -> None:
    headers = {"cookie": f"{cookie_name(SETTINGS)}={secret}", "content-type": "application/json"}
    while time.monotonic() < end:
        before = time.perf_counter()
        connection.request("GET", f"/v1/queue?n={AHEAD}", headers=headers)
        reply = connection.getresponse()
        items = json.loads(reply.read()).get("items", [])
        timings.queues.append(1000 * (time.perf_counter() - before))
        for item in items:
            time.sleep(pause)
            id, position = str(uuid4()), len(timings.log) % 2
            body = json.dumps({"id": id, "assignment": item["assignment"], "outcome": "win", "position": position, "rt_ms": 700})
            before = time.perf_counter()
            connection.request("POST", "/v1/votes", body, headers)
            reply = connection.getresponse()
            reply.read()
            timings.votes.append(1000 * (time.perf_counter() - before))
            if reply.status == 201:
                timings.log.append((id, number, position))
            else:
                timings.refused += 1


def claim_until(url: str, end: float) -> list[float]:
    """Do what a trainer does, five times a second: count the votes, and claim the round's votes once 90 % of its questions are answered."""
    store = Store(url)
    claims: list[float] = []
    round = 0
    while time.monotonic() < end:
        time.sleep(0.2)
        if store.votes.count(round=round) < store.questions.progress(round=round).wanted * 0.9:
            continue
        before = time.perf_counter()
        store.batches.claim(round)
        claims.append(1000 * (time.perf_counter() - before))
        round += 1
    store.close()
    return claims


def show(timings: Timings, claims: list[float], seconds: float) -> None:
    print("| what | count | median ms | p99 ms | max ms |")
    print("| --- | --- | --- | --- | --- |")
    for name, values in (
        ("vote acknowledged", timings.votes),
        (f"queue of {AHEAD}", timings.queues),
        ("trainer's claim of a round", claims),
    ):
        if len(values) > 1:
            p99 = statistics.quantiles(values, n=100)[98]
            print(f"| {name} | {len(values)} | {statistics.median(values):.1f} | {p99:.1f} | {max(values):.1f} |")
    cost = 1000 * timings.server_seconds / max(1, len(timings.votes))
    busy = f"{timings.server_seconds / seconds:.0%} of a core"
    print(
        f"{len(timings.votes) / seconds:.0f} votes/s, {timings.refused} not taken; the server used {cost:.1f} ms of processor a vote, {busy}"
    )
    print(f"load average of the machine: {os.getloadavg()[0]:.1f}")


def compare_with_logs(url: str, log: list[tuple[str, int, int]]) -> None:
    """Print how many acknowledged votes the store lost, duplicated, or recorded with another answer or annotator. Any of these fails the benchmark."""
    store = Store(url)
    votes = list(store.votes.current())
    numbers = {each.id: int(each.handle.rpartition("-")[2]) for each in store.people.annotators() if each.handle.startswith("annotator-")}
    kept = {vote.id: (numbers[vote.annotator], vote.shown.index(vote.answer.winner or 0)) for vote in votes}
    store.close()
    lost = sum(id not in kept for id, _, _ in log)
    wrong = sum(kept.get(id, said) != said for id, *rest in log for said in [tuple(rest)])
    doubled = len(votes) - len(kept)
    print(f"{len(log)} acknowledged, {len(kept)} kept: {lost} lost, {doubled} doubled, {wrong} misattributed or misread")
    if lost or doubled or wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
