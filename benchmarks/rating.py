"""`python -m benchmarks.rating` measures the rating server: how long annotators wait for their questions and votes while a trainer reads.

A real `d3po rate` on SQLite, simulated annotators on a connection each, all on this machine, so the annotators take their share of its cores.
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
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import psutil
from PIL import Image

from d3po.preferences.records import NewQuestion
from d3po.preferences.store import NewPicture, Store

PROMPTS, IMAGES = 60, 16
AHEAD = 4
"""Questions fetched at once, as the page does."""


@dataclass
class Timings:
    """Milliseconds by what was asked."""

    votes: list[float] = field(default_factory=list)
    queues: list[float] = field(default_factory=list)
    refused: int = 0
    server_seconds: float = 0.0
    """Processor time of the server meanwhile."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rating", description="Measure the rating server on this machine.")
    parser.add_argument("--annotators", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds an annotator looks before answering (default: 0, full speed)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="d3po-rating-") as directory:
        run = Path(directory)
        secrets = furnish(run, arguments.annotators)
        with subprocess.Popen(command(run), stdout=subprocess.PIPE, text=True) as server:
            try:
                if server.stdout is None or not server.stdout.readline():
                    parser.error("the server did not start")
                timings, claims = measure(run, server.pid, secrets, arguments.seconds, arguments.pause)
            finally:
                server.send_signal(signal.SIGTERM)
    show(timings, claims, arguments.seconds)


def furnish(run: Path, annotators: int) -> list[str]:
    """A run with pictures and more questions than will be answered, in rounds of 600; the annotators' session secrets."""
    (run / "run.toml").write_text("")
    (run / "images").mkdir()
    store = Store.in_folder(run)
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
            kind="pair", purpose="train", images=(ids[start + a], ids[start + b]), round=start // (5 * IMAGES), overlap=1, priority=start
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


def command(run: Path) -> list[str]:
    """A server that asks everybody for a session, as it would for people elsewhere."""
    return [sys.executable, "-m", "d3po", "rate", str(run), "--no-browser", "--port", "0", "--url", "http://rate.example.org"]


def measure(run: Path, server: int, secrets: list[str], seconds: float, pause: float) -> tuple[Timings, list[float]]:
    """All annotators at once, and a trainer that counts, reads and claims; the timings, and the milliseconds of each claim."""
    process = psutil.Process(server)
    port = next(each.laddr.port for each in process.net_connections("tcp") if each.status == "LISTEN")
    timings, end, spent = Timings(), time.monotonic() + seconds, sum(process.cpu_times()[:2])
    threads = [threading.Thread(target=annotate, args=(port, secret, timings, end, pause)) for secret in secrets]
    for thread in threads:
        thread.start()
    claims = claim_until(run, end)
    for thread in threads:
        thread.join()
    timings.server_seconds = sum(process.cpu_times()[:2]) - spent
    return timings, claims


def annotate(port: int, secret: str, timings: Timings, end: float, pause: float) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"cookie": f"d3po={secret}", "content-type": "application/json"}
    while time.monotonic() < end:
        before = time.perf_counter()
        connection.request("GET", f"/v1/queue?n={AHEAD}", headers=headers)
        reply = connection.getresponse()
        items = json.loads(reply.read()).get("items", [])
        timings.queues.append(1000 * (time.perf_counter() - before))
        for item in items:
            time.sleep(pause)
            ballot = {"id": str(uuid4()), "assignment": item["assignment"], "outcome": "win", "position": 0, "rt_ms": 700}
            body = json.dumps(ballot)
            before = time.perf_counter()
            connection.request("POST", "/v1/votes", body, headers)
            reply = connection.getresponse()
            reply.read()
            timings.votes.append(1000 * (time.perf_counter() - before))
            timings.refused += reply.status != 201


def claim_until(run: Path, end: float) -> list[float]:
    """What a trainer does meanwhile, five times a second: count the votes, and claim the next round's as soon as it is answered."""
    store = Store.in_folder(run)
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


if __name__ == "__main__":
    main()
