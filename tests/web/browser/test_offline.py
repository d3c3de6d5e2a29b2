"""No answer is lost: not offline, not by a reload, not when the server dies; and nothing is counted twice."""

from pathlib import Path
from typing import Any

from playwright.sync_api import Dialog, Route

from tests.web.browser.conftest import OpenContext, OpenRater
from tests.web.browser.rater import Rater
from tests.web.browser.rooms import Room, free_port, server_process


def test_answers_given_offline_are_kept_and_sent_when_the_network_is_back(room: Room, rater: OpenRater, screenshots: Path) -> None:
    room.ask("pair", 12)
    tab = rater().wait(queue=4)
    tab.page.context.set_offline(True)
    for _ in range(4):
        tab.answer("ArrowLeft")
    tab.press("ArrowLeft").wait(net="offline", unsaved=5, state="waiting")
    assert "Offline, your votes are kept · 5 unsaved" in tab.text("#saving")
    tab.page.wait_for_selector("#stage >> text=Your votes are kept")
    tab.keep(screenshots, "offline")
    assert room.votes() == []
    tab.page.context.set_offline(False)
    tab.wait(net="online", unsaved=0)
    assert len(room.wait_for_votes(5)) == 5
    tab.complaints.clear()  # the browser's own notes of failed requests


def test_undo_offline_reaches_the_server_in_the_right_order(room: Room, rater: OpenRater) -> None:
    room.ask("pair", 8)
    tab = rater().wait(queue=4)
    tab.page.context.set_offline(True)
    tab.answer("ArrowLeft").answer("u").answer("ArrowRight").answer("ArrowUp")
    tab.page.context.set_offline(False)
    tab.wait(unsaved=0)
    right, tie = room.wait_for_votes(2)
    assert (right.answer.winner, tie.answer.outcome) == (right.shown[1], "tie")
    tab.complaints.clear()


def test_unsaved_votes_survive_a_reload_and_leaving_is_guarded(room: Room, rater: OpenRater) -> None:
    room.ask("pair", 12)
    tab = rater().wait(queue=4)
    tab.page.route("**/v1/votes", lambda route: route.fulfill(status=503, json={"detail": "the store is away"}))
    answered = []
    for _ in range(3):
        answered.append(tab.fact("assignment"))
        tab.answer("ArrowLeft")
    tab.wait(net="away", unsaved=3)
    asked: list[str] = []

    def accept(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.accept()

    tab.page.on("dialog", accept)
    tab.page.reload()
    tab.wait(state="rating", unsaved=3).settle()
    assert asked == ["beforeunload"]
    assert tab.fact("assignment") not in answered
    tab.page.unroute("**/v1/votes")
    tab.wait(net="online", unsaved=0)
    assert len(room.wait_for_votes(3)) == 3
    tab.complaints.clear()


def test_an_answer_whose_receipt_got_lost_is_sent_again_and_counts_once(room: Room, rater: OpenRater) -> None:
    room.ask("pair", 6)
    tab = rater()
    lost: list[str] = []

    def lose_first_receipt(route: Route) -> None:
        if lost:
            return route.continue_()
        route.fetch()  # the server has the vote, the page never hears of it
        vote: Any = route.request.post_data_json
        lost.append(vote["id"])
        return route.abort()

    tab.page.route("**/v1/votes", lose_first_receipt)
    tab.answer("ArrowLeft").wait(unsaved=0, net="online")
    assert [vote.id for vote in room.wait_for_votes(1)] == lost
    tab.complaints.clear()


def test_a_refused_answer_is_shown_and_kept_until_it_is_discarded(room: Room, rater: OpenRater) -> None:
    room.ask("pair", 6)
    tab = rater()
    tab.page.route("**/v1/votes", lambda route: route.fulfill(status=422, json={"detail": "outcome: no such thing"}), times=1)
    tab.answer("ArrowLeft").wait(refused=1, unsaved=0)
    tab.answer("ArrowLeft").wait(refused=1, unsaved=0)
    tab.page.click("#show-refused")
    assert "no such thing" in tab.text("#refused-list")
    tab.page.click("#refused-list button")
    tab.wait(refused=0)
    assert len(room.wait_for_votes(1)) == 1
    tab.complaints.clear()


def test_a_killed_and_restarted_server_has_every_answer_once(room: Room, context: OpenContext) -> None:
    room.ask("pair", 20)
    port = free_port()
    with server_process(room, port) as first:
        url = f"http://127.0.0.1:{port}"
        tab = Rater(context(), url).enter(room.link(url)).open().wait(queue=4)
        tab.answer("ArrowLeft").answer("ArrowLeft")
        first.kill()
        first.wait()
        for _ in range(3):
            tab.answer("ArrowRight")
        tab.wait(net="offline", unsaved=3)
    with server_process(room, port):
        tab.wait(net="online", unsaved=0)
        tab.answer("ArrowUp").wait(unsaved=0)
        outcomes = [vote.answer.outcome for vote in room.wait_for_votes(6)]
    assert outcomes == ["win"] * 5 + ["tie"]


KEPT = """async () => {
  const names = await caches.keys();
  const caught = await Promise.all(names.map(async (name) => (await (await caches.open(name)).keys()).map(({ url }) => new URL(url).pathname)));
  return { names, paths: caught.flat() };
}"""


def test_a_reload_while_the_server_is_away_brings_the_page_and_its_votes_back(room: Room, context: OpenContext, screenshots: Path) -> None:
    room.ask("pair", 12)
    port = free_port()
    with server_process(room, port) as first:
        url = f"http://127.0.0.1:{port}"
        tab = Rater(context(service_workers="allow"), url).enter(room.link(url)).open().wait(queue=4)
        tab.page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        kept = tab.page.evaluate(KEPT)
        assert len(kept["names"]) == 1
        assert {"/rate", "/static/rate.js", "/static/modes/pair.js"} <= set(kept["paths"])
        assert all(path == "/rate" or path.startswith("/static/") for path in kept["paths"]), "nothing that is anybody's"
        first.kill()
        first.wait()
        tab.answer("ArrowLeft").answer("ArrowRight").wait(net="offline", unsaved=2)
        tab.page.on("dialog", lambda dialog: dialog.accept())
        tab.page.reload()
        tab.wait(state="offline", unsaved=2)
        tab.keep(screenshots, "reloaded-offline")
        assert "Your votes are kept" in tab.text("#stage")
        assert "Offline, your votes are kept · 2 unsaved" in tab.text("#saving")
    with server_process(room, port):
        tab.wait(state="rating", net="online", unsaved=0)
        room.wait_for_votes(2)


def test_two_tabs_share_the_work_and_the_outbox(room: Room, rater: OpenRater) -> None:
    room.ask("pair", 6)
    one = rater().wait(queue=4)
    two = Rater(one.page.context, one.url).open().wait(queue=4)
    for turn in range(6):
        answered = (one, two)[turn % 2].fact("assignment")
        turning = {tab: tab.shown + 1 for tab in (one, two) if tab.fact("assignment") == answered}
        (one, two)[turn % 2].press("ArrowLeft")
        for tab, shown in turning.items():
            tab.page.wait_for_selector(f"body[data-state='waiting'], body[data-shown='{shown}']")
            tab.settle()
    for tab in (one, two):
        tab.wait(state="waiting", unsaved=0)
    votes = room.wait_for_votes(6)
    assert len({vote.question for vote in votes}) == 6
