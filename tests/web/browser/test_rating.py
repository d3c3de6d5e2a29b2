"""Rating as people do it: by keyboard, fast, with second thoughts."""

import statistics
from collections import Counter
from pathlib import Path

from tests.web.browser.conftest import OpenContext, OpenRater
from tests.web.browser.rater import Rater
from tests.web.browser.rooms import Room, free_port, server_process

KEYS = {"ArrowLeft": "win", "ArrowRight": "win", "ArrowUp": "tie", "ArrowDown": "both_bad", "s": "skip"}


def test_fifty_pairs_by_keyboard_alone_are_fifty_votes(room: Room, context: OpenContext, screenshots: Path) -> None:
    room.ask("pair", 50, size=256)
    port = free_port()
    with server_process(room, port):
        url = f"http://127.0.0.1:{port}"
        rater = Rater(context(), url).enter(room.link(url)).open()
        pressed = [list(KEYS)[i % len(KEYS)] for i in range(50)]
        paints = []
        for key in pressed[:-1]:
            rater.answer(key)
            paints.append(float(rater.fact("paintMs")))
        rater.keep(screenshots, "pair-light")
        rater.press(pressed[-1]).wait(state="waiting", unsaved=0)
        votes = room.wait_for_votes(50)
    (screenshots / "paint-ms.txt").write_text(
        f"median {statistics.median(paints):.1f} ms, slowest {max(paints):.1f} ms, of {len(paints)} keys\n"
    )
    assert [vote.answer.outcome for vote in votes] == [KEYS[key] for key in pressed]
    assert all(vote.answer.winner == vote.shown[0] for vote, key in zip(votes, pressed, strict=True) if key == "ArrowLeft")
    assert all(vote.answer.winner == vote.shown[1] for vote, key in zip(votes, pressed, strict=True) if key == "ArrowRight")
    assert rater.complaints == []


def test_both_pictures_are_shown_in_the_same_paint(room: Room, rater: OpenRater) -> None:
    room.ask("pair", 3, size=256)
    page = rater().page
    ready = "() => [...document.querySelectorAll('.frame img')].map(i => i.complete && i.naturalWidth === 256 && i.decoding === 'sync')"
    assert page.evaluate(ready) == [True, True]


def test_a_held_key_answers_once(room: Room, rater: OpenRater) -> None:
    room.ask("pair", 5)
    tab = rater()
    tab.page.keyboard.down("ArrowLeft")
    tab.wait(shown=2).settle()
    for _ in range(3):
        tab.page.keyboard.down("ArrowLeft")
        tab.settle()
    assert tab.shown == 2
    assert len(room.wait_for_votes(1)) == 1


def test_a_second_key_right_after_a_paint_is_not_heard(room: Room, rater: OpenRater) -> None:
    room.ask("pair", 5)
    tab = rater()
    tab.press("ArrowLeft", "ArrowRight", "ArrowLeft")
    tab.wait(shown=2).settle()
    assert tab.fact("past") == "1"


def test_undo_goes_back_any_number_of_steps_and_the_new_answers_stand(room: Room, rater: OpenRater) -> None:
    room.ask("pair", 10)
    tab = rater()
    first = tab.fact("assignment")
    for _ in range(4):
        tab.answer("ArrowLeft")
    for _ in range(4):
        tab.answer("u")
    assert tab.fact("assignment") == first
    assert "Undone" in tab.text("#status")
    tab.wait(unsaved=0)
    assert room.votes() == []
    for _ in range(4):
        tab.answer("ArrowRight")
    assert all(vote.answer.winner == vote.shown[1] for vote in room.wait_for_votes(4))


def test_undo_still_works_after_a_reload(room: Room, rater: OpenRater) -> None:
    room.ask("pair", 6)
    tab = rater()
    first = tab.fact("assignment")
    tab.answer("ArrowLeft").wait(unsaved=0)
    tab.page.reload()
    tab.wait(state="rating", shown=1).settle()
    assert tab.fact("assignment") != first
    tab.answer("Control+z")
    assert tab.fact("assignment") == first
    tab.wait(unsaved=0)
    assert room.votes() == []


def test_keys_can_be_bound_anew_and_stay_so(room: Room, rater: OpenRater, screenshots: Path) -> None:
    room.ask("pair", 5)
    tab = rater()
    tab.press("?")
    tab.keep(screenshots, "help")
    tab.page.click("button[aria-label='Left: ←. Change']")
    tab.press("j", "Escape")
    tab.answer("j")
    tab.page.reload()
    tab.wait(state="rating", shown=1).settle().answer("j")
    assert Counter(vote.answer.outcome for vote in room.wait_for_votes(2)) == {"win": 2}


def test_a_report_needs_a_reason_and_carries_it(room: Room, rater: OpenRater, screenshots: Path) -> None:
    room.ask("pair", 3)
    tab = rater()
    tab.press("x")
    tab.page.check("input[value='prompt']")
    tab.page.fill("#flag-words", "no such place")
    tab.keep(screenshots, "report")
    tab.answer("Enter")
    (vote,) = room.wait_for_votes(1)
    assert (vote.answer.outcome, vote.answer.reason) == ("flag", "prompt: no such place")


def test_zoom_and_pan_move_both_pictures_and_shift_arrows_do_not_vote(room: Room, rater: OpenRater) -> None:
    room.ask("pair", 2, size=256)
    tab = rater()
    transforms = "() => [...document.querySelectorAll('.hold img')].map(i => getComputedStyle(i).transform)"
    whole = tab.page.evaluate(transforms)
    tab.page.hover(".frame >> nth=0")
    tab.page.mouse.wheel(0, -400)
    tab.press("Shift+ArrowLeft")
    left, right = tab.page.evaluate(transforms)
    assert left == right != whole[0]
    assert tab.fact("past") == "0"
    tab.press("z")
    assert tab.page.evaluate(transforms) == whole


def test_dragging_a_zoomed_picture_does_not_choose_it(room: Room, rater: OpenRater) -> None:
    room.ask("pair", 2, size=256)
    tab = rater()
    tab.press("z")
    box = tab.page.locator(".frame").first.bounding_box()
    assert box is not None
    tab.page.mouse.move(box["x"] + 100, box["y"] + 100)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + 160, box["y"] + 130, steps=4)
    tab.page.mouse.up()
    assert tab.fact("past") == "0"
    tab.page.mouse.click(box["x"] + 100, box["y"] + 100)
    tab.wait(past=1)


def test_holding_f_lays_the_pictures_over_each_other(room: Room, rater: OpenRater) -> None:
    room.ask("pair", 2)
    tab = rater()
    tab.page.keyboard.down("f")
    tab.wait(compare=True)
    visible = "() => [...document.querySelectorAll('.frame')].filter(f => getComputedStyle(f).visibility === 'visible').length"
    assert tab.page.evaluate(visible) == 1
    tab.page.keyboard.up("f")
    tab.wait(compare=False)
    assert tab.page.evaluate(visible) == 2


def test_a_missing_picture_is_said_and_can_be_skipped(room: Room, rater: OpenRater) -> None:
    room.ask("pair", 1)
    (room.folder / "images" / "pair-0-0-1.png").unlink()
    tab = rater().wait(broken=True)
    assert "missing" in tab.text("#stage")
    tab.press("ArrowLeft", "s").wait(state="waiting", unsaved=0)
    assert [vote.answer.outcome for vote in room.wait_for_votes(1)] == ["skip"]
    assert all("404" in complaint for complaint in tab.complaints)
    tab.complaints.clear()


def test_a_page_without_questions_asks_gently(room: Room, rater: OpenRater) -> None:
    room.ask("pair", 1)
    one = rater().settle()
    two = Rater(one.page.context, one.url).open()
    asked: list[str] = []
    for tab in (one, two):
        tab.page.on("request", lambda request: asked.append(request.url))
    one.press("ArrowLeft")
    for tab in (one, two):
        tab.wait(state="waiting", unsaved=0)
    one.page.wait_for_timeout(500)
    asked.clear()
    one.page.wait_for_timeout(2500)
    assert len(asked) <= 12, "at most twice each: who am I, and what is next"


def test_the_next_round_opens_by_itself_and_the_end_is_friendly(room: Room, rater: OpenRater, screenshots: Path) -> None:
    room.ask("pair", 1)
    tab = rater()
    tab.press("ArrowLeft").wait(state="waiting")
    room.store.journal.write("phase", 0, {"phase": "training", "message": "Update 12 of 64"})
    tab.wait(state="waiting", phase="training")
    tab.keep(screenshots, "waiting")
    room.ask("pair", 1, round=1)
    room.store.journal.write("phase", 1, {"phase": "rating", "message": ""})
    tab.wait(state="rating").settle()
    tab.press("ArrowLeft")
    room.store.journal.write("phase", 1, {"phase": "done", "message": ""})
    tab.wait(state="done")
    tab.keep(screenshots, "done")
    assert "Thank you" in tab.text("#stage")
