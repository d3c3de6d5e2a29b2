"""Every way of asking, by keyboard, by mouse and by finger."""

from pathlib import Path

import pytest

from d3po.preferences.records import Kind
from tests.web.browser.conftest import OpenRater
from tests.web.browser.rater import Rater
from tests.web.browser.rooms import Room

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2, "color_scheme": "dark"}
TOO_SMALL = """() => {
  const small = ({ width, height }) => width < 44 || height < 44;
  const seen = [...document.querySelectorAll("button, a")].filter((button) => button.checkVisibility());
  return seen.filter((button) => small(button.getBoundingClientRect())).map((button) => button.outerHTML);
}"""
"""What a finger would miss: visible buttons and links under 44 pixels wide or high."""
BY_KEYBOARD: dict[Kind, tuple[list[str], str]] = {
    "best_worst": (["2", "4"], "best_worst"),
    "rank": (["3", "1", "4", "Enter"], "rank"),
    "grid": (["2", "5", "9", "5", "Enter"], "marks"),
    "thumb": (["ArrowUp"], "up"),
    "score": (["4"], "score"),
}


def centre(tab: Rater, selector: str, index: int) -> tuple[float, float]:
    box = tab.page.locator(selector).nth(index).bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(tab: Rater, picture: int, place: int) -> None:
    tab.page.mouse.move(*centre(tab, ".frame", picture))
    tab.page.mouse.down()
    tab.page.mouse.move(*centre(tab, ".slot", place), steps=5)
    tab.page.mouse.up()


@pytest.mark.parametrize("kind", BY_KEYBOARD)
def test_each_way_of_asking_works_by_keyboard(kind: Kind, room: Room, rater: OpenRater, screenshots: Path) -> None:
    room.ask(kind, 2, size=256)
    tab = rater()
    keys, outcome = BY_KEYBOARD[kind]
    tab.press(*keys[:-1])
    tab.keep(screenshots, kind)
    tab.answer(keys[-1])
    (vote,) = room.wait_for_votes(1)
    said = {vote.shown.index(image): value for image, value in vote.answer.values.items()}
    expected = {"best_worst": {1: 1, 3: -1}, "rank": {2: 1, 0: 2, 3: 3, 1: 4}, "grid": {1: 1, 8: 1}, "score": {0: 4}}
    assert (vote.answer.outcome, said) == (outcome, expected.get(kind, {}))


@pytest.mark.parametrize("kind", ["pair", *BY_KEYBOARD])
def test_every_way_of_asking_fits_a_phone(kind: Kind, room: Room, rater: OpenRater, screenshots: Path) -> None:
    room.ask(kind, 2, size=256)
    tab = rater(**PHONE)
    tab.keep(screenshots, f"phone-{kind}")
    page = tab.page
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth && document.documentElement.scrollHeight <= innerHeight")
    assert page.evaluate(TOO_SMALL) == []
    wide = "() => [...document.querySelectorAll('.answer')].filter(b => b.scrollWidth > b.clientWidth + 1).map(b => b.textContent)"
    assert page.evaluate(wide) == []


def test_a_tap_on_a_picture_of_a_phone_chooses_it(room: Room, rater: OpenRater) -> None:
    room.ask("pair", 2, size=256)
    tab = rater(**PHONE)
    assert tab.text(".answer >> nth=0").strip() == "Upper"
    tab.page.tap(".frame >> nth=1")
    (vote,) = room.wait_for_votes(1)
    assert vote.answer.winner == vote.shown[1]


def test_an_order_can_be_made_by_dragging_and_changed(room: Room, rater: OpenRater) -> None:
    room.ask("rank", 2, size=256)
    tab = rater()
    drag(tab, 3, 0)
    drag(tab, 2, 1)
    drag(tab, 1, 0)  # pushes the first one out again
    drag(tab, 3, 3)
    tab.answer("Enter")
    (vote,) = room.wait_for_votes(1)
    assert {vote.shown.index(image): value for image, value in vote.answer.values.items()} == {1: 1, 2: 2, 0: 3, 3: 4}


def test_equal_places_in_an_order_are_equal(room: Room, rater: OpenRater) -> None:
    room.ask("rank", 2)
    tab = rater()
    tab.press("1", "2", "=", "3").answer("Enter")
    (vote,) = room.wait_for_votes(1)
    assert {vote.shown.index(image): value for image, value in vote.answer.values.items()} == {0: 1, 1: 1, 2: 3, 3: 4}


def test_an_incomplete_order_is_not_taken(room: Room, rater: OpenRater) -> None:
    room.ask("rank", 2)
    tab = rater().press("1", "Enter")
    assert "needs a place" in tab.text("#status")
    assert tab.fact("past") == "0"


def test_small_pictures_grow_by_whole_pixels(room: Room, rater: OpenRater, screenshots: Path) -> None:
    room.ask("pair", 2, size=32)
    tab = rater(color_scheme="dark")
    tab.keep(screenshots, "pair-small")
    size, style = tab.page.evaluate(
        "() => { const i = document.querySelector('.hold img'); return [i.clientWidth, getComputedStyle(i).imageRendering]; }"
    )
    assert size >= 320
    assert size % 32 == 0
    assert style == "pixelated"
