"""One thread a process, the longest tests first, and no waiting for the disk."""

import os

import pytest

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # sums are added in one order, and workers do not fight for cores; read when torch is first imported
os.fsync = lambda fd: None  # only a power cut would show; tests that end processes, and those of full disks, are none the worse
LONGEST = ("test_story.py", "test_live_run.py", "test_processes.py", "test_divided.py")
"""Files whose tests take the better part of a minute each: begun last, one worker would end long after the others."""


@pytest.fixture(scope="session", autouse=True)
def hasty() -> None:
    """Databases of this process do not wait for the disk either."""
    from d3po.store import database

    database.SYNCHRONOUS = "OFF"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest begin."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
