"""The blind test at the page and on the dashboard: one key ends it, and its result stands first."""

from pathlib import Path

from tests.web.browser.conftest import OpenContext
from tests.web.browser.rater import Rater
from tests.web.browser.rooms import Room

RESULT = "People preferred the tuned model to the base model 75 % of the time (95 % interval 30 to 95 %), from 4 blind answers."


def waiting_for_a_test(room: Room) -> list[int]:
    """A run that waits for the answers of a blind test."""
    room.store.journal.write("phase", 1, {"phase": "blind test", "message": "12 questions: base or tuned?"})
    return room.ask("pair", 12, size=256, purpose="blind")


def test_who_runs_it_skips_the_blind_test_with_one_key_and_is_told_its_result(room: Room, context: OpenContext, screenshots: Path) -> None:
    ids = waiting_for_a_test(room)
    with room.served() as url:
        guest = Rater(context(), url)
        guest.page.goto(f"{url}/join#{room.store.people.invite('mia').token}")
        guest.wait(state="rating").settle()
        assert "drawn before training" in guest.text("#ask")
        assert guest.page.locator("#end-test").is_hidden()
        guest.press("t").settle()
        assert guest.fact("state") == "rating", "the run is not theirs"

        owner = Rater(context(), url).enter(room.link(url)).open()
        owner.answer("ArrowLeft").wait(unsaved=0)
        assert owner.page.locator("#end-test").is_visible()
        owner.keep(screenshots, "blind-test")
        owner.press("t").wait(state="waiting")
        assert "The test is over" in owner.text("#status")
        assert room.store.questions.awaited(ids) == 0
        owner.keep(screenshots, "blind-skipped")
        assert len(room.wait_for_votes(1)) == 1
        room.store.journal.write("phase", None, {"phase": "done", "message": RESULT})
        owner.wait(state="done")
        assert RESULT in owner.text("#stage")
        owner.keep(screenshots, "blind-done")
    owner.page.wait_for_timeout(4000)
    assert owner.fact("state") == "done", "a run that is over takes its page away, and the thanks stay"
    assert guest.complaints == []


def test_the_dashboard_shows_what_people_said_first_and_ends_the_test(room: Room, context: OpenContext, screenshots: Path) -> None:
    ids = waiting_for_a_test(room)
    write = room.store.journal.write
    for rounds, (low, value, high) in enumerate([(0.5, 0.5, 0.5), (0.45, 0.58, 0.7), (0.55, 0.66, 0.76)]):
        room.evaluate(rounds)
        measured = {
            "rounds": rounds,
            "comparisons": 80 * rounds,
            "win_rate": {"value": value, "low": low, "high": high},
            "mean_score": value,
        }
        write("evaluation", rounds - 1 if rounds else None, measured | {"measured": "warmth"})
    for rounds, answers, (low, value, high) in [(1, 4, (0.26, 0.63, 0.9)), (2, 5, (0.31, 0.8, 0.96))]:
        write("evaluation", rounds - 1, {"rounds": rounds, "people": {"value": value, "low": low, "high": high}, "people_answers": answers})
    with room.served() as url:
        tab = Rater(context(viewport={"width": 1280, "height": 1100}), url).enter(room.link(url))
        tab.page.goto(f"{url}/dashboard")
        tab.wait(state="shown")
        first, *others = (tile.inner_text() for tile in tab.page.locator("#tiles .tile").all())
        assert first.split("\n\n") == [
            "People prefer it to the base model",
            "80 %",
            "95 % interval 31 % to 96 %, from 5 blind answers about the model after round 1",
        ]
        assert [tile.split("\n\n")[0] for tile in others] == ["Votes", "Win rate by warmth", "Agreement", "Cost so far"]
        titles = tab.page.locator("#curves figcaption").all_inner_texts()
        assert titles[0] == "People prefer it to the base model"
        assert {"Win rate by warmth", "Mean warmth"} <= set(titles)
        assert tab.page.locator("[data-control=train_now]").is_hidden()
        tab.page.screenshot(path=screenshots / "blind-dashboard.png", full_page=True)
        tab.page.click("[data-control=end_test]")
        tab.page.click("#confirm-yes")
        tab.page.wait_for_selector("#confirm:not([open])", state="attached")
        tab.page.wait_for_timeout(500)
        assert room.store.questions.awaited(ids) == 0
    assert tab.complaints == []
