"""A stand-in for an endpoint that speaks chat completions, which behaves as badly as it is told to."""

import base64
import io
import json
import math
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

Reply = tuple[int, dict[str, str], bytes]
Behaviour = Callable[[dict[str, Any], int], Reply]
"""From the request's body, and its number from 0, to status, headers and body."""


@dataclass
class Stub:
    """The server: what it was asked, and how it answers."""

    behaviour: Behaviour
    asked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    url: str = ""
    most_at_once: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, body: dict[str, Any], headers: dict[str, str]) -> Reply:
        with self._lock:
            number = len(self.asked)
            self.asked.append(body)
            self.headers.append(headers)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            return self.behaviour(body, number)
        finally:
            with self._lock:
                self._now -= 1


@contextmanager
def serving(behaviour: Behaviour) -> Generator[Stub, None, None]:
    stub = Stub(behaviour)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, headers, content = stub.answer({"path": self.path} | body, dict(self.headers))
            try:
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(content))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except ConnectionError:
                pass  # a client that did not wait

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def completion(text: str | None, *, tokens: Any = None, read: int = 100, written: int = 10) -> Reply:
    choice = {"message": {"content": text}, "logprobs": tokens}
    body = {"choices": [choice], "usage": {"prompt_tokens": read, "completion_tokens": written}, "id": "x"}
    return 200, {}, json.dumps(body).encode()


def verdict(choice: str) -> Reply:
    return completion(json.dumps({"choice": choice, "reason": "because"}))


def weighed(**probabilities: float) -> Reply:
    """A verdict for the likeliest, with the log-probs of all; the choice's token begins with the quotation mark before it."""
    listed = [{"token": f'"{choice[:3]}', "logprob": math.log(share)} for choice, share in probabilities.items()]
    choice = max(probabilities, key=lambda each: probabilities[each])
    said = {"token": f'"{choice[:3]}', "logprob": math.log(probabilities[choice]), "top_logprobs": listed}
    around = [{"token": token, "logprob": 0.0} for token in ('{"choice":', " ", choice[3:], '", "reason": "because"}')]
    text = json.dumps({"choice": choice, "reason": "because"})
    return completion(text, tokens={"content": [*around[:2], said, *around[2:]]})


def brighter(body: dict[str, Any], number: int) -> Reply:
    """A judge that looks."""
    first, second = map(brightness, pictures(body))
    return verdict("tie" if first == second else "first" if first > second else "second")


def always_first(body: dict[str, Any], number: int) -> Reply:
    """A judge that does not."""
    return verdict("first")


def slow(body: dict[str, Any], number: int) -> Reply:
    time.sleep(0.05)
    return brighter(body, number)


def stumbling(*replies: Reply, then: Behaviour = brighter) -> Behaviour:
    """These first, one a request, then good behaviour."""
    return lambda body, number: replies[number] if number < len(replies) else then(body, number)


def pictures(body: dict[str, Any]) -> list[Image.Image]:
    """The pictures of a request, in order."""
    parts = body["messages"][1]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]


def brightness(image: Image.Image) -> int:
    return sum(image.convert("L").tobytes())
