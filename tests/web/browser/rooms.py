"""A run's folder filled with pictures and questions, and real servers at it."""

import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from d3po.preferences.records import Answer, Kind, NewQuestion, Purpose, Vote
from d3po.store import NewPicture, Store
from d3po.web.app import create_app
from d3po.web.server import listen, uvicorn_config
from d3po.web.settings import WebSettings
from tests.web.browser.pictures import paint

HOST = "127.0.0.1"
PICTURES = {"pair": 2, "best_worst": 5, "rank": 4, "grid": 9, "thumb": 1, "score": 1}
PROMPTS = ["a quiet valley at dusk, in the manner of a woodcut", "hills after rain, wide and calm", "the last light over a northern ridge"]


@dataclass(frozen=True, kw_only=True)
class Room:
    """A folder with a store in it."""

    folder: Path
    store: Store

    def ask(
        self,
        kind: Kind,
        count: int,
        *,
        size: int = 64,
        overlap: int = 1,
        round: int = 0,
        prompts: list[str] | None = None,
        purpose: Purpose = "train",
    ) -> list[int]:
        """Ask so many questions of a kind, about new pictures."""
        texts = prompts or PROMPTS
        ids = self.store.pictures.add_prompts(texts)
        return self.store.questions.ask(
            [
                NewQuestion(
                    kind=kind, purpose=purpose, images=self._pictures(f"{kind}-{round}-{i}", ids[i % len(ids)], PICTURES[kind], size),
                    round=round, overlap=overlap, priority=float(i),
                )
                for i in range(count)
            ]
        )  # fmt: skip

    def _pictures(self, name: str, prompt: int, count: int, size: int) -> tuple[int, ...]:
        paths = [f"images/{name}-{k}.png" for k in range(count)]
        made = [
            NewPicture(prompt=prompt, number=k, path=path, sha256=paint(self.folder / path, size=size, name=path))
            for k, path in enumerate(paths)
        ]
        return tuple(self.store.pictures.add_pictures(series=name, origin="imported", model="drawn", policy="", seed=None, pictures=made))

    def judge(self, round: int, right: dict[str, float], *, pairs: int = 40) -> None:
        """Let people judge pairs of a round of their own: each names the first picture with the chance given."""
        prompt, *_ = self.store.pictures.add_prompts(PROMPTS[:1])
        groups = [self._pictures(f"judged-{round}-{i}", prompt, 2, 8) for i in range(pairs)]
        for handle, chance in right.items():
            draw, who = random.Random(f"{round}/{handle}"), self.store.people.annotator(handle, "human").id
            self.store.votes.record_judgements(
                who,
                [
                    (
                        NewQuestion(kind="pair", purpose="train", images=images, round=round, overlap=len(right)),
                        Answer(outcome="win", winner=images[draw.random() > chance]),
                    )
                    for images in groups
                ],
            )

    def evaluate(self, rounds: int, *, win_rate: tuple[float, float, float] | None = None, size: int = 32) -> None:
        """Record the held-out pictures after so many rounds, and what was measured on them."""
        label = "base" if rounds == 0 else f"round-{rounds - 1:03}"
        for prompt in self.store.pictures.add_prompts([f"held out: {text}" for text in PROMPTS]):
            made = [self._held_out(prompt, k, label, size, layers=1 + min(rounds, 3)) for k in range(4)]
            self.store.pictures.add_pictures(
                series=f"held-out/{label}", origin="evaluation", model="drawn", policy=label, seed=0, pictures=made
            )
        if win_rate is not None:
            low, value, high = win_rate
            body = {"rounds": rounds, "comparisons": 160 * rounds, "win_rate": {"value": value, "low": low, "high": high}}
            self.store.journal.write("evaluation", rounds - 1 if rounds else None, {**body, "diversity_kept": 1 - 0.04 * rounds})

    def _held_out(self, prompt: int, number: int, label: str, size: int, *, layers: int) -> NewPicture:
        path = f"images/held-out/{label}/{prompt}-{number}.png"
        return NewPicture(
            prompt=prompt, number=number, path=path, sha256=paint(self.folder / path, size=size, name=f"{prompt}-{number}", layers=layers)
        )

    def votes(self) -> list[Vote]:
        """The current votes, in order of arrival."""
        return list(self.store.votes.current())

    def wait_for_votes(self, count: int, seconds: float = 30) -> list[Vote]:
        """The current votes, once there are so many."""
        until = time.monotonic() + seconds
        while len(self.votes()) != count and time.monotonic() < until:
            time.sleep(0.05)
        assert len(self.votes()) == count
        return self.votes()

    def settings(self, port: int) -> WebSettings:
        """How the room is served: nothing is asked again, so that what is asked is what is answered."""
        return WebSettings(run="valleys", images=str(self.folder), host=HOST, port=port, repeat_rate=0.0)

    def link(self, url: str) -> str:
        """A link that makes one browser the owner's at a server at that address."""
        return f"{url}/join#{self.store.people.invite_owner().token}"

    @contextmanager
    def served(self) -> Generator[str, None, None]:
        """A server in this process, with a store of its own, as in life; gives its address."""
        with closing(listen(HOST, 0)) as listener, closing(Store.in_folder(self.folder)) as store:
            settings = self.settings(port := listener.getsockname()[1])
            server = uvicorn.Server(uvicorn_config(create_app(store, settings), settings))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            try:
                yield f"http://{HOST}:{port}"
            finally:
                server.should_exit = True
                thread.join()


def free_port() -> int:
    """A port nobody listens at."""
    with closing(socket.socket()) as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


@contextmanager
def server_process(room: Room, port: int) -> Generator[subprocess.Popen[bytes], None, None]:
    """A server as a process of its own, that can be killed."""
    process = subprocess.Popen([sys.executable, "-m", "tests.web.browser.serve", str(room.folder), str(port)])
    try:
        _wait_until_healthy(f"http://{HOST}:{port}/healthz", process)
        yield process
    finally:
        process.kill()
        process.wait()


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(400):
        assert process.poll() is None, "the server ended by itself"
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the server did not start")
