"""The rating page beside a run: a process of its own, since serving and training share nothing but the store."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

SECONDS_TO_STOP = 10


@contextmanager
def rating_page(run: Path, port: int) -> Generator[None, None, None]:
    """Serve the page of a run on this machine until the block ends."""
    command = [sys.executable, "-m", "d3po", "rate", str(run), "--port", str(port)]
    with subprocess.Popen(command) as server:
        try:
            yield
        finally:
            server.terminate()
            try:
                server.wait(SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                server.kill()
