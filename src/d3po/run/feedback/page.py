"""Serves the rating page beside a run, in another process, because serving and training share only the store."""

import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from d3po.errors import ConfigError

SECONDS_TO_STOP = 10
SERVED, REFUSED = "rate at ", "error: "
"""The beginnings of the server's line with the address of its page, and of its line with an error."""


@contextmanager
def rating_page(run: Path, port: int, say: Callable[[str], None]) -> Generator[None, None, None]:
    """Serve the rating page of a run on this machine until the block ends, and pass the server's messages to `say`.

    Raises:
        ConfigError: the page cannot be served, because the port is in use, another server serves the run, or the like.
    """
    command = [sys.executable, "-m", "d3po", "rate", str(run), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        lines = (line.rstrip() for line in server.stdout)
        try:
            _wait_until_served(lines, say)
            Thread(target=_pass_on, args=(server, lines, run, say), daemon=True).start()
            yield
        finally:
            server.terminate()
            try:
                server.wait(SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait_until_served(lines: Iterator[str], say: Callable[[str], None]) -> None:
    for line in lines:
        if line.startswith(REFUSED):
            raise ConfigError(line.removeprefix(REFUSED))
        say(line)
        if line.startswith(SERVED):
            return
    raise ConfigError("the rating page could not be served, so nobody can answer; run `d3po rate` to see why")


def _pass_on(server: "subprocess.Popen[str]", lines: Iterator[str], run: Path, say: Callable[[str], None]) -> None:
    for line in lines:
        say(line)
    if server.wait() not in (0, -signal.SIGINT, -signal.SIGTERM):
        say(f"the server of the rating page ended unexpectedly (exit code {server.returncode}); start it again with `d3po rate {run}`")
