"""Chromium, rooms to rate in, and a place for pictures of the pages: D3PO_SCREENSHOTS, or a temporary folder."""

import os
import shutil
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from d3po.store import Store
from tests.web.browser.rater import Rater
from tests.web.browser.rooms import Room

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip

OpenContext = Callable[..., BrowserContext]
OpenRater = Callable[..., Rater]


def chromium_path() -> str | None:
    """A Chromium of this machine, if it has one: D3PO_CHROMIUM, or what is on the path."""
    named = os.environ.get("D3PO_CHROMIUM")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


@pytest.fixture(scope="package")
def chromium() -> Generator[Browser, None, None]:
    """One browser for these tests, gone before others run: Playwright keeps an event loop running, in which asyncio.run fails."""
    path = chromium_path()
    if path is None:
        pytest.skip("no Chromium here; install one (`python -m tools.chromium` does on Debian, as root) or name it in D3PO_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures of the pages are kept."""
    named = os.environ.get("D3PO_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def empty_room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose trainer waits for votes in round 0, to be copied: making one takes a while."""
    folder = tmp_path_factory.mktemp("empty")
    with closing(Store.in_folder(folder)) as store:
        store.journal.write("phase", 0, {"phase": "rating", "message": ""})
    return folder


@pytest.fixture
def room(empty_room: Path, tmp_path: Path) -> Generator[Room, None, None]:
    """An empty room."""
    shutil.copytree(empty_room, tmp_path, dirs_exist_ok=True)
    with closing(Store.in_folder(tmp_path)) as store:
        yield Room(folder=tmp_path, store=store)


@pytest.fixture
def context(chromium: Browser) -> Generator[OpenContext, None, None]:
    """Opens browser profiles that know nothing of each other; a page is what the server has now, unless a test lets workers keep it."""
    with ExitStack() as stack:

        def open_context(**options: Any) -> BrowserContext:
            usual: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce", "service_workers": "block"}
            made = chromium.new_context(**(usual | options))
            stack.callback(made.close)
            return made

        yield open_context


@pytest.fixture
def rater(room: Room, context: OpenContext) -> Generator[OpenRater, None, None]:
    """Opens the rating page of the room, each time as another browser of the owner's; every page must have run without an error."""
    opened: list[Rater] = []
    with room.served() as url:

        def open_rater(**options: Any) -> Rater:
            opened.append(Rater(context(**options), url).enter(room.link(url)).open())
            return opened[-1]

        yield open_rater
        for one in opened:
            assert one.complaints == []
