"""For everybody: no violation of WCAG 2 A and AA on any page in either scheme, words stay words, nothing from elsewhere."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from d3po.preferences.records import Kind
from tests.web.browser.conftest import OpenContext, OpenRater
from tests.web.browser.rater import Rater
from tests.web.browser.rooms import Room
from tests.web.browser.test_people import fill

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
SCHEMES = ["light", "dark"]
KINDS: list[Kind] = ["pair", "best_worst", "rank", "grid", "thumb", "score"]


def violations(page: Page) -> list[str]:
    found = Axe().run(page, options=RULES).response["violations"]
    return [f"{one['id']}: {node['target']} {node['failureSummary']}" for one in found for node in one["nodes"]]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_rating_page_has_no_barriers_in_any_mode(scheme: str, room: Room, rater: OpenRater) -> None:
    for round, kind in enumerate(KINDS):
        room.ask(kind, 1, size=128, round=round)
    tab = rater(color_scheme=scheme)
    seen = []
    for _ in KINDS:
        seen.append(tab.fact("kind"))
        assert violations(tab.page) == []
        tab.press("s").wait(past=len(seen)).settle()
    assert sorted(seen) == sorted(KINDS)
    tab.answer("u")
    for dialog, key in (("#help", "?"), ("#flag", "x")):
        tab.press(key).page.wait_for_selector(f"{dialog}[open]")
        assert violations(tab.page) == []
        tab.press("Escape")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_other_pages_have_no_barriers(scheme: str, room: Room, context: OpenContext, screenshots: Path) -> None:
    fill(room)
    with room.served() as url:
        tab = Rater(context(color_scheme=scheme), url)
        tab.page.goto(f"{url}/join")
        tab.wait(state="refused")
        assert violations(tab.page) == []
        tab.page.goto(url)
        assert violations(tab.page) == []
        tab.keep(screenshots, f"front-{scheme}")
        tab.page.goto(f"{url}/rate")
        tab.wait(state="signed-out")
        assert violations(tab.page) == []
        tab.keep(screenshots, f"signed-out-{scheme}")
        tab.enter(room.link(url)).page.goto(f"{url}/dashboard")
        tab.wait(state="shown")
        tab.page.fill("[name=handle]", "mia")
        tab.page.click("#invite button")
        tab.page.wait_for_selector("#invitations table")
        assert violations(tab.page) == []
        tab.keep(screenshots, f"dashboard-{scheme}")


def test_waiting_has_no_barriers(room: Room, rater: OpenRater) -> None:
    room.ask("pair", 1)
    tab = rater()
    tab.press("s").wait(state="waiting")
    assert violations(tab.page) == []


def test_a_prompt_with_markup_is_shown_as_text(room: Room, rater: OpenRater) -> None:
    hostile = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script> {{7*7}}"
    room.ask("pair", 2, prompts=[hostile])
    tab = rater()
    assert tab.text("#prompt") == hostile
    assert tab.page.locator("#prompt img").count() == 0
    tab.answer("ArrowLeft")
    assert "taken" not in tab.page.title()
    assert "{{7*7}}" in tab.text("#status")


def test_nothing_is_fetched_from_elsewhere(room: Room, context: OpenContext) -> None:
    room.ask("pair", 2)
    with room.served() as url:
        tab = Rater(context(), url)
        asked: list[str] = []
        tab.page.on("request", lambda request: asked.append(request.url))
        tab.enter(room.link(url)).open().page.goto(f"{url}/dashboard")
        tab.wait(state="shown")
    assert asked
    assert all(one.startswith(f"{url}/") for one in asked)


def test_the_whole_page_can_be_used_with_the_tab_key(room: Room, rater: OpenRater) -> None:
    room.ask("pair", 3)
    tab = rater()
    reached = []
    for _ in range(20):
        tab.press("Tab")
        reached.append(tab.page.evaluate("() => document.activeElement.dataset.act ?? document.activeElement.className"))
    assert {"frame", "pair.left", "pair.tie", "pair.both_bad", "pair.right", "skip", "flag", "compare", "zoom.reset", "help"} <= set(
        reached
    )
    tab.page.focus("[data-act='pair.right']")
    tab.answer("Enter")
    assert tab.page.evaluate("() => document.activeElement.dataset.act") == "pair.right"


def test_the_theme_can_be_chosen_and_is_remembered(room: Room, rater: OpenRater) -> None:
    room.ask("pair", 3)
    tab = rater(color_scheme="light")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    light = tab.page.evaluate(ground)
    tab.page.click("#theme")
    dark = tab.page.evaluate(ground)
    tab.page.reload()
    tab.wait(state="rating")
    assert light != dark == tab.page.evaluate(ground)
