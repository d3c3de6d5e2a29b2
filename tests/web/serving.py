"""A real server and a real trainer: `d3po rate` and `d3po run`, each in a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx

COMMAND = (sys.executable, "-m", "d3po")
ENVIRONMENT = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}


class Server:
    """A running `d3po rate`, its address, and the link that lets its owner's browser in, once."""

    def __init__(self, process: subprocess.Popen[str], link: str) -> None:
        self.process, self.link = process, link
        self.url = link.partition("/join#")[0]

    def sign_in(self, url: str | None = None) -> dict[str, str]:
        """Open the link; the headers of whoever did."""
        reply = httpx.post(f"{url or self.url}/v1/session", json={"token": self.link.partition("#")[2]})
        assert reply.status_code == 204, reply.text
        return {"cookie": reply.headers["set-cookie"].partition(";")[0]}

    def stop(self, by: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; the exit code and what stood on stderr."""
        self.process.send_signal(by)
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors


def line_of(process: "subprocess.Popen[str]") -> str:
    """The next line that it prints."""
    return process.stdout.readline() if process.stdout else ""


@contextmanager
def serving(run: Path, *options: str) -> Generator[Server, None, None]:
    """Serve a run on a free port of this machine."""
    command = [*COMMAND, "rate", str(run), "--no-browser", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        try:
            line = line_of(process)
            if not line.startswith("rate at "):
                raise RuntimeError(f"the server did not start: {line}{process.communicate(timeout=30)[1]}")
            yield Server(process, line.split()[2])
        finally:
            if process.poll() is None:
                process.kill()


@contextmanager
def training(run: Path, *options: str) -> Generator["subprocess.Popen[str]", None, None]:
    """Train a run; it knows the page only through the store."""
    command = [*COMMAND, "run", str(run), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
