"""One thread a process, and the longest tests first."""

import os

import pytest

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # sums are added in one order, and workers do not fight for cores; read when torch is first imported
LONGEST = ("test_story.py", "test_live_run.py", "test_processes.py", "test_divided.py")
"""Files whose tests take the better part of a minute each: begun last, one worker would end long after the others."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest begin."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
