"""Who comes in, and how: invitations, several annotators, the dashboard's levers."""

import re
from collections import Counter
from pathlib import Path

from tests.web.browser.conftest import OpenContext
from tests.web.browser.rater import Rater
from tests.web.browser.rooms import PROMPTS, Room


def test_two_invited_annotators_rate_at_once_blind_to_each_other(room: Room, context: OpenContext) -> None:
    room.ask("pair", 6, overlap=2)
    with room.served() as url:
        tabs = []
        for handle in ("mia", "noor"):
            token = room.store.people.invite(handle).token
            tab = Rater(context(), url)
            tab.page.goto(f"{url}/join#{token}")
            tabs.append(tab.wait(state="rating").settle())
            assert token not in tab.page.url
            assert tab.text("#handle") == handle
        for _ in range(5):
            for tab in tabs:
                tab.answer("ArrowLeft")
        for tab in tabs:
            tab.press("ArrowLeft").wait(state="waiting", unsaved=0)
        votes = room.wait_for_votes(12)
    assert Counter(Counter(vote.question for vote in votes).values()) == {2: 6}
    assert len({vote.annotator for vote in votes}) == 2
    assert tabs[0].complaints == tabs[1].complaints == []


def test_a_bad_invitation_is_refused_in_words_and_leaves_the_address(room: Room, context: OpenContext, screenshots: Path) -> None:
    with room.served() as url:
        tab = Rater(context(), url)
        tab.page.goto(f"{url}/join#made-up")
        tab.wait(state="refused")
        tab.keep(screenshots, "join-refused")
        assert "Ask the person who invited you" in tab.text("#message")
        assert tab.page.url == f"{url}/join"


def test_the_owner_s_link_lets_one_browser_in_and_without_it_the_page_says_where_it_is(
    room: Room, context: OpenContext, screenshots: Path
) -> None:
    room.ask("pair", 6)
    with room.served() as url:
        link = room.link(url)
        tab, other = Rater(context(), url), Rater(context(), url)
        tab.page.goto(url)
        assert "d3po invite RUN owner" in tab.text("main")
        tab.page.click("text=opened my link here before")
        tab.wait(state="signed-out")
        assert "d3po invite RUN owner" in tab.text("#stage")
        tab.complaints.clear()  # the browser's own note of the 401
        tab.enter(link).open().answer("ArrowLeft").wait(unsaved=0)
        assert tab.text("#handle") == "owner"
        tab.page.goto(url)
        assert tab.wait(state="rating").page.url == f"{url}/rate"
        other.page.goto(link)
        other.wait(state="refused")
        other.keep(screenshots, "link-used-up")
        assert "already used" in other.text("#message")
        tab.page.goto(link)
        tab.wait(state="refused").page.click("text=opened my link here before")
        tab.wait(state="rating")


def fill(room: Room) -> None:
    """A run in its third round, as a dashboard shows it."""
    room.ask("pair", 30, overlap=2)
    for round in range(3):
        room.judge(round + 1, {"mia": 0.9, "noor": 0.7 + 0.1 * round})
    for rounds, win_rate in enumerate([(0.5, 0.5, 0.5), (0.52, 0.6, 0.68), (0.57, 0.66, 0.74), (0.63, 0.71, 0.79)]):
        room.evaluate(rounds, win_rate=win_rate)
    room.store.journal.write("alarm", 1, {"message": "the KL to the reference is 0.031, above 0.03", "stops": False})
    room.store.journal.write("update", 1, {"seconds": 840.0, "network_rows": 51200})


def test_the_dashboard_shows_the_run_and_moves_its_levers(room: Room, context: OpenContext, screenshots: Path) -> None:
    fill(room)
    with room.served() as url:
        tab = Rater(context(viewport={"width": 1280, "height": 900}), url)
        tab.enter(room.link(url)).open()
        for key in ("ArrowLeft", "ArrowRight", "ArrowLeft", "ArrowUp"):
            tab.answer(key)
        tab.wait(unsaved=0)
        tab.page.goto(f"{url}/dashboard")
        tab.wait(state="shown", votes=4 + 3 * 2 * 40)
        tab.page.wait_for_load_state("networkidle")
        tab.page.screenshot(path=screenshots / "dashboard.png")
        tab.page.screenshot(path=screenshots / "dashboard-whole.png", full_page=True)
        page = tab.page
        assert "71 %" in tab.text("#tiles")
        assert "above 0.03" in tab.text("#alarms")
        assert f"held out: {PROMPTS[0]}" in tab.text("#samples")
        assert page.locator("#curves svg").count() == 4
        assert "Agreement of people, by round" in tab.text("#curves")
        assert "no pair was compared by two people" in tab.text("#rounds")
        assert page.locator("#samples img").count() == 3 * 4 * 4
        page.click("[data-control=pause]")
        tab.wait(paused=True)
        assert room.store.journal.current_control().paused
        page.click("[data-control=resume]")
        tab.wait(paused=False)
        page.click("[data-control=train_now]")
        page.click("#confirm [data-close]")
        assert room.store.journal.current_control().train_now_round is None
        page.click("[data-control=train_now]")
        page.click("#confirm-yes")
        page.wait_for_selector("[data-control=train_now]:disabled")
        assert room.store.journal.current_control().train_now_round == 0
        page.click("[data-control=stop]")
        tab.keep(screenshots, "confirm")
        page.click("#confirm-yes")
        tab.wait(stop=True)
    assert tab.complaints == []


def test_an_invitation_from_the_dashboard_lets_somebody_in_until_it_is_withdrawn(
    room: Room, context: OpenContext, screenshots: Path
) -> None:
    room.ask("pair", 6)
    with room.served() as url:
        admin = Rater(context(), url).enter(room.link(url)).page
        admin.goto(f"{url}/dashboard")
        admin.fill("[name=handle]", "mia")
        admin.click("#invite button")
        admin.wait_for_selector("#invited-link:not(:empty)")
        link = admin.inner_text("#invited-link")
        assert re.fullmatch(rf"{re.escape(url)}/join#\S+", link)
        guest = Rater(context(), url)
        guest.page.goto(link)
        guest.wait(state="rating").settle().answer("ArrowLeft").wait(unsaved=0)
        assert guest.text("#handle") == "mia"
        admin.click("text=Withdraw")
        admin.screenshot(path=screenshots / "withdraw.png")
        admin.click("#confirm-yes")
        admin.wait_for_selector("#invitations :text('withdrawn')")
    room.wait_for_votes(1)


def test_an_annotator_is_turned_away_from_the_dashboard(room: Room, context: OpenContext) -> None:
    with room.served() as url:
        tab = Rater(context(), url)
        tab.page.goto(f"{url}/join#{room.store.people.invite('mia').token}")
        tab.wait(state="waiting")
        tab.page.goto(f"{url}/dashboard")
        tab.wait(state="refused")
        assert "administrators" in tab.text("#trouble")
