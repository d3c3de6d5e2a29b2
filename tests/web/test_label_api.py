"""Questions and votes over HTTP: the client names positions, the store keeps pictures."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from d3po.preferences.records import Kind, Vote
from tests.web.conftest import House, Serve, app_state_of, join
from tests.web.world import PROMPTS, ask, png

ANSWERS: list[tuple[Kind, dict[str, Any]]] = [
    ("pair", {"outcome": "win", "position": 1}),
    ("pair", {"outcome": "tie"}),
    ("pair", {"outcome": "both_bad"}),
    ("best_worst", {"outcome": "best_worst", "positions": {"2": 1, "0": -1}}),
    ("rank", {"outcome": "rank", "positions": {"0": 1, "1": 2, "2": 2, "3": 4}}),
    ("grid", {"outcome": "marks", "positions": {"1": 1, "3": 1}}),
    ("grid", {"outcome": "marks", "positions": {}}),
    ("thumb", {"outcome": "up"}),
    ("thumb", {"outcome": "down"}),
    ("score", {"outcome": "score", "positions": {"0": 4}}),
    *((kind, {"outcome": "skip"}) for kind in ("pair", "best_worst", "rank", "grid", "thumb", "score")),
    *((kind, {"outcome": "flag", "reason": "an <b>ugly</b> one"}) for kind in ("pair", "score")),
]


def ballot(item: Mapping[str, Any], **answer: object) -> dict[str, object]:
    return {"id": str(uuid4()), "assignment": item["assignment"], "rt_ms": 900, "client": "tab-1", **answer}


def questions(client: TestClient, n: int = 1) -> list[dict[str, Any]]:
    return client.get("/v1/queue", params={"n": n}).json()["items"]


def current_votes(house: House) -> list[Vote]:
    return list(house.store.votes.current())


@pytest.mark.parametrize(("kind", "answer"), ANSWERS, ids=lambda part: part if isinstance(part, str) else part["outcome"])
def test_every_kind_of_answer_is_stored_by_picture(house: House, owner: TestClient, kind: Kind, answer: dict[str, Any]) -> None:
    ask(house.store, house.pictures, kind)
    (item,) = questions(owner)
    assert item["kind"] == kind
    assert item["instruction"]
    reply = owner.post("/v1/votes", json=ballot(item, **answer))
    assert reply.status_code == 201, reply.text
    (vote,) = current_votes(house)
    assert vote.answer.outcome == answer["outcome"]
    order = house.shown(item)
    assert list(vote.shown) == order
    assert vote.answer.winner == (order[answer["position"]] if "position" in answer else None)
    assert vote.answer.values == {order[int(position)]: value for position, value in answer.get("positions", {}).items()}
    assert vote.answer.reason == answer.get("reason")
    assert vote.rt_ms == 900


def test_positions_follow_the_order_that_was_shown(house: House, owner: TestClient) -> None:
    ask(house.store, house.pictures, overlap=1)
    orders = set()
    for item in questions(owner, 12):
        owner.post("/v1/votes", json=ballot(item, outcome="win", position=0))
        orders.add(house.shown(item) == sorted(house.shown(item)))
    assert orders == {True, False}, "the server draws the order"
    assert all(vote.answer.winner == vote.shown[0] for vote in current_votes(house))


def test_a_question_shows_its_prompt_and_pictures_as_they_are(house: House, owner: TestClient) -> None:
    ask(house.store, house.pictures)
    items = questions(owner, 12)
    assert {item["prompt"] for item in items} == set(PROMPTS)
    for image in (image for item in items for image in item["images"]):
        assert (image["width"], image["height"]) == (8, 6)
    reply = owner.get(items[0]["images"][0]["url"])
    assert reply.headers["content-type"] == "image/png"
    assert "immutable" in reply.headers["cache-control"]
    assert reply.content == house.file(house.shown(items[0])[0]).read_bytes()
    again = owner.get(items[0]["images"][0]["url"], headers={"if-none-match": reply.headers["etag"]})
    assert again.status_code == 304
    assert not again.content


def test_asking_again_brings_the_same_questions(house: House, owner: TestClient) -> None:
    ask(house.store, house.pictures)
    first = [(item["assignment"], house.shown(item)) for item in questions(owner, 4)]
    assert [(item["assignment"], house.shown(item)) for item in questions(owner, 4)] == first


def test_the_same_vote_twice_is_one_vote_and_another_under_its_id_is_refused(house: House, owner: TestClient) -> None:
    ask(house.store, house.pictures)
    (item,) = questions(owner)
    sent = ballot(item, outcome="win", position=0)
    assert [owner.post("/v1/votes", json=sent).status_code for _ in range(3)] == [201, 200, 200]
    conflict = owner.post("/v1/votes", json=sent | {"position": 1})
    assert conflict.status_code == 409
    assert "new UUID" in conflict.json()["detail"]
    assert len(current_votes(house)) == 1


@pytest.mark.parametrize(
    "answer",
    [
        {"outcome": "win"},
        {"outcome": "win", "position": 2},
        {"outcome": "win", "position": -1},
        {"outcome": "win", "position": True},
        {"outcome": "win", "position": "1"},
        {"outcome": "win", "position": 1.0},
        {"outcome": "up"},
        {"outcome": "share", "positions": {"0": 0.9, "1": 0.9}},
        {"outcome": "tie", "position": 0},
        {"outcome": "tie", "reason": "no flag"},
        {"outcome": "tie", "rt_ms": -1},
        {"outcome": "tie", "rt_ms": 1e300},
        {"outcome": "tie", "client": "<script>"},
        {"outcome": "tie", "positions": {"0": 1, "00": 1}},
        {"outcome": "tie", "positions": {"../0": 1}},
        {"outcome": "tie", "annotator": 1},
        {"outcome": "flag", "reason": "nul \x00"},
        {"outcome": "flag", "reason": "\ud800"},
        {"outcome": "flag", "reason": "x" * 501},
        {"outcome": "'; DROP TABLE vote; --"},
    ],
    ids=str,
)
def test_an_answer_that_does_not_fit_is_refused_in_one_line(house: House, owner: TestClient, answer: dict[str, object]) -> None:
    ask(house.store, house.pictures)
    (item,) = questions(owner)
    reply = owner.post("/v1/votes", content=json.dumps(ballot(item, **answer)), headers={"content-type": "application/json"})
    assert reply.status_code == 422
    detail = reply.json()["detail"]
    assert isinstance(detail, str)
    assert "\n" not in detail
    assert current_votes(house) == []


def test_sql_in_a_reason_is_a_reason(house: House, owner: TestClient) -> None:
    ask(house.store, house.pictures)
    (item,) = questions(owner)
    words = "'); DELETE FROM vote; -- % _ \" \\ 🙂"
    assert owner.post("/v1/votes", json=ballot(item, outcome="flag", reason=words)).status_code == 201
    assert [vote.answer.reason for vote in current_votes(house)] == [words]


def test_undo_asks_the_same_question_again_in_the_same_order(house: House, owner: TestClient) -> None:
    ask(house.store, house.pictures)
    (item,) = questions(owner)
    sent = ballot(item, outcome="win", position=0)
    owner.post("/v1/votes", json=sent)
    withdrawal = {"id": str(uuid4())}
    reply = owner.post(f"/v1/votes/{sent['id']}/retract", json=withdrawal)
    assert reply.status_code == 200
    assert reply.json()["item"]["assignment"] == item["assignment"]
    assert house.shown(reply.json()["item"]) == house.shown(item)
    assert current_votes(house) == []
    assert owner.post(f"/v1/votes/{sent['id']}/retract", json=withdrawal).status_code == 200
    assert questions(owner)[0]["assignment"] == item["assignment"]
    assert owner.post("/v1/votes", json=ballot(item, outcome="win", position=1)).status_code == 201
    assert [vote.answer.winner for vote in current_votes(house)] == [house.shown(item)[1]]


def test_nobody_takes_back_or_answers_for_another(house: House, public: TestClient) -> None:
    ask(house.store, house.pictures, overlap=2)
    ada, eve = join(public, house, "ada"), join(public, house, "eve")
    (item,) = questions(ada)
    sent = ballot(item, outcome="tie")
    assert eve.post("/v1/votes", json=sent).status_code == 404
    assert ada.post("/v1/votes", json=sent).status_code == 201
    assert eve.post(f"/v1/votes/{sent['id']}/retract", json={"id": str(uuid4())}).status_code == 404
    assert eve.post("/v1/votes", json=sent).status_code == 404
    assert len(current_votes(house)) == 1


def test_me_counts_what_is_done_and_left(house: House, owner: TestClient) -> None:
    ask(house.store, house.pictures)
    before = owner.get("/v1/me").json()
    assert (before["handle"], before["role"], before["done"], before["left"]) == ("owner", "admin", 0, 12)
    for item in questions(owner, 5):
        owner.post("/v1/votes", json=ballot(item, outcome="tie"))
    after = owner.get("/v1/me").json()
    assert (after["done"], after["left"], after["rate_per_minute"]) == (5, 7, 1.0)


def test_who_waits_hears_what_the_trainer_does(house: House, serve: Serve) -> None:
    house.store.journal.write("phase", 3, {"phase": "sampling", "message": "2 of 6 prompts"})
    client = serve()
    assert client.get("/v1/queue").json() == {"items": [], "done": 0, "left": 0, "phase": "sampling"}
    me = client.get("/v1/me").json()
    assert (me["round"], me["phase"], me["message"]) == (3, "sampling", "2 of 6 prompts")


def test_a_picture_that_is_missing_or_was_changed_is_not_shown_and_the_question_still_comes(house: House, owner: TestClient) -> None:
    ask(house.store, house.pictures)
    (item,) = questions(owner)
    first, second = house.shown(item)
    house.file(first).write_bytes(png((255, 0, 0)))
    house.file(second).unlink()
    fresh = TestClient(owner.app, base_url=str(owner.base_url), cookies=owner.cookies)
    app_state_of(fresh).pictures._cache.clear()
    assert [fresh.get(image["url"]).status_code for image in item["images"]] == [404, 404]
    assert [fresh.get(f"/v1/images/{image}").status_code for image in (first, second, 10**6)] == [404, 404, 404]
    (item,) = questions(fresh)
    assert [image["width"] for image in item["images"]] == [None, None]
