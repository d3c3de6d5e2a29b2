"""Somebody who rates, as the tests see them: a page, its keys, and what it says about itself."""

import time
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, Page

DEAF_MS = 150
"""The page ignores answers so long after a paint."""
PATIENCE_MS = 30_000
"""For slow machines with much else to do."""


class Rater:
    """A tab at the rating page."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.url = url
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)

    def enter(self, link: str) -> "Rater":
        """Open a link that lets this browser in, and wait for the page it leads to."""
        self.page.goto(link)
        self.page.wait_for_url(f"{self.url}/rate", timeout=PATIENCE_MS)
        return self

    def open(self) -> "Rater":
        """Go to the page and wait for the first question."""
        if self.page.url != f"{self.url}/rate":
            self.page.goto(f"{self.url}/rate")
        return self.wait(state="rating").settle()

    def wait(self, **facts: Any) -> "Rater":
        """Wait until the page says this about itself."""
        wanted = "".join(
            f"[data-{name.replace('_', '-')}='{str(value).lower() if isinstance(value, bool) else value}']" for name, value in facts.items()
        )
        self.page.wait_for_selector(f"body{wanted}", timeout=PATIENCE_MS)
        return self

    def fact(self, name: str) -> str:
        """What the page says about itself, in camel case: `paintMs`."""
        return str(self.page.evaluate("name => document.body.dataset[name] ?? ''", name))

    @property
    def shown(self) -> int:
        """How many questions were painted so far."""
        return int(self.fact("shown") or 0)

    def settle(self) -> "Rater":
        """Wait until the page listens to answers again."""
        self.page.wait_for_selector("body[data-shown]", timeout=PATIENCE_MS)
        time.sleep(DEAF_MS / 1000 + 0.02)
        return self

    def press(self, *keys: str) -> "Rater":
        """Press keys that do not answer yet."""
        for key in keys:
            self.page.keyboard.press(key)
        return self

    def answer(self, *keys: str) -> "Rater":
        """Answer with these keys and wait for the next question."""
        before = self.shown
        self.press(*keys)
        self.wait(shown=before + 1)
        return self.settle()

    def text(self, selector: str) -> str:
        """What stands there."""
        return self.page.inner_text(selector)

    def keep(self, folder: Path, name: str) -> None:
        """Take a picture of the page."""
        self.page.screenshot(path=folder / f"{name}.png")
