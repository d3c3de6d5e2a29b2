"""The dashboard's data, the trainer's controls, invitations and the audit log."""

from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from d3po.preferences.records import Answer, NewQuestion, Role
from d3po.store import NewPicture
from d3po.web.run_log import JournalView
from tests.web.conftest import ELSEWHERE, House, Serve, app_state_of, join
from tests.web.world import PROMPTS, ask


def vote(client: TestClient, n: int, **answer: object) -> list[dict[str, object]]:
    items = client.get("/v1/queue", params={"n": n}).json()["items"]
    for item in items:
        body = {"id": str(uuid4()), "assignment": item["assignment"], "rt_ms": 800, **answer}
        assert client.post("/v1/votes", json=body).status_code == 201
    return items


def test_an_empty_run_has_a_dashboard(owner: TestClient) -> None:
    data = owner.get("/v1/dashboard").json()
    assert data["run"] == "run"
    assert data["votes"] == 0
    assert data["rounds"] == data["curves"] == data["annotators"] == data["alarms"] == data["samples"] == []
    assert data["agreement"] is None
    assert len(data["votes_per_minute"]) == 120


def test_votes_show_by_round_and_minute(house: House, owner: TestClient) -> None:
    ask(house.store, house.pictures, overlap=2)
    vote(owner, 5, outcome="tie")
    data = owner.get("/v1/dashboard").json()
    (round,) = data["rounds"]
    assert (round["round"], round["questions"], round["wanted"], round["answered"], round["open"]) == (0, 12, 24, 5, 19)
    assert data["votes"] == sum(minute["votes"] for minute in data["votes_per_minute"]) == 5
    assert sum(minute["votes"] for minute in data["votes_per_minute"][-2:]) == 5


def test_what_the_trainer_says_becomes_phases_curves_alarms_and_cost(house: House, owner: TestClient) -> None:
    write = house.store.journal.write
    ask(house.store, house.pictures)
    write("phase", 0, {"phase": "sampling", "message": "", "seconds": 2.0, "network_rows": 100})
    write("evaluation", None, {"label": "base", "rounds": 0, "mean_score": 0.1, "comparisons": 0})
    write("update", 0, {"phase": "training", "seconds": 1.5, "network_rows": 64})
    write("evaluation", 0, {"rounds": 1, "mean_score": 0.3, "comparisons": 12, "win_rate": {"value": 0.6, "low": 0.5, "high": 0.7}})
    write("evaluation", 0, {"rounds": 1, "mean_score": 0.4, "comparisons": 12, "win_rate": {"value": 0.7, "low": 0.6, "high": 0.8}})
    write("alarm", 0, {"guard": "kl", "message": "KL is high", "stops": False})
    write("alarm", 0, {"guard": "kl", "message": "KL is too high", "stops": True})
    write("phase", 0, {"phase": "training"})
    data = owner.get("/v1/dashboard").json()
    assert [phase["phase"] for phase in data["rounds"][0]["phases"]] == ["sampling", "training"]
    assert data["phase"]["phase"] == "training"
    curves = {curve["name"]: curve["points"] for curve in data["curves"]}
    assert curves.keys() == {"mean_score", "win_rate"}
    assert [point["value"] for point in curves["mean_score"]] == [0.1, 0.4], "measured again: the newer one counts"
    (win,) = curves["win_rate"]
    assert (win["value"], win["low"], win["high"], win["rounds"], win["comparisons"]) == (0.7, 0.6, 0.8, 1, 12)
    assert [(alarm["message"], alarm["stops"]) for alarm in data["alarms"]] == [("KL is too high", True), ("KL is high", False)]
    assert data["cost"] == {"network_rows": 164, "seconds": 3.5, "updates": 1}


def test_the_journal_is_read_on_from_where_it_was_left(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d3po.web.run_log.FRESH_SECONDS", 0.0)
    view, write = JournalView(house.store.journal), house.store.journal.write
    for entry in range(3):
        write("update", entry, {"network_rows": 10, "seconds": float("1"), "strange": [1, {"a": None}]})
        assert view.cost().network_rows == 10 * (entry + 1)
    write("phase", 7, {"phase": 3, "message": None})
    assert (view.phase().phase, view.phase().round) == ("", 7)
    assert view.round() == 7


def test_annotators_and_their_agreement_show(house: House, public: TestClient) -> None:
    ask(house.store, house.pictures, overlap=3)
    ask(house.store, house.pictures, gold=True, overlap=3)
    roles: dict[str, Role] = {"root": "admin", "ada": "annotator", "bob": "annotator"}
    root, ada, bob = (join(public, house, name, role) for name, role in roles.items())
    vote(ada, 12, outcome="win", position=0)
    vote(bob, 12, outcome="win", position=0)
    data = root.get("/v1/dashboard").json()
    people = {person["handle"]: person for person in data["annotators"]}
    assert people.keys() == {"ada", "bob"}
    assert people["ada"]["votes"] == 12
    assert people["ada"]["left_share"] == 1.0
    assert people["ada"]["median_rt_ms"] == 800
    assert data["agreement"]["pairs"] > 0


def test_pairs_come_again_and_how_often_somebody_says_the_same_shows(house: House, serve: Serve) -> None:
    ask(house.store, house.pictures)
    client = serve(repeat_rate=1.0)
    items = [item for _ in range(13) for item in vote(client, 1, outcome="win", position=0)]
    twice = {tuple(sorted(house.shown(item))) for item in items}
    (person,) = client.get("/v1/dashboard").json()["annotators"]
    assert len(twice) == len(items) - 1
    assert (person["votes"], person["again_asked"], person["again_same"]) == (len(items), 1, 0), "always left is never the same"


def test_agreement_shows_by_round_and_older_rounds_are_not_read_again(
    house: House, owner: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d3po.web.dashboard.FRESH_SECONDS", 0.0)
    monkeypatch.setattr("d3po.web.dashboard.EFFORT", float("inf"))
    everybody = [house.store.people.annotator(name, "human").id for name in ("ada", "bob")]
    rule = house.store.people.annotator("reward:warmth", "rule").id
    images = house.pictures[min(house.pictures)]
    pairs = [(a, b) for i, a in enumerate(images) for b in images[i + 1 :]]

    def judge(round: int, annotator: int, sign: int, count: int) -> None:
        said = [
            (
                NewQuestion(kind="pair", purpose="train", images=pair, round=round, overlap=2),
                Answer(outcome="win", winner=sorted(pair)[::sign][0]),
            )
            for pair in shifted(pairs, round)[:count]
        ]
        house.store.votes.record_judgements(annotator, said)

    def by_round() -> list[tuple[float | None, int] | None]:
        told = [round["agreement"] for round in owner.get("/v1/dashboard").json()["rounds"]]
        return [None if one is None else (one["alpha"], one["pairs"]) for one in told]

    judge(0, everybody[0], 1, 2)
    judge(0, rule, 1, 2)
    assert by_round() == [(None, 0)], "a rule is nobody to agree with"
    judge(0, everybody[1], 1, 2)
    judge(1, everybody[0], 1, 2)
    assert by_round() == [(1.0, 2), (None, 0)]
    judge(1, everybody[1], -1, 1)
    read: list[object] = []
    current_votes = house.store.votes.current
    monkeypatch.setattr(house.store.votes, "current", lambda **which: (read.append(which.get("round")), current_votes(**which))[1])
    (first, second) = by_round()
    assert first == (1.0, 2)
    assert second is not None
    assert second[0] is not None
    assert second[0] < 0
    assert read == [None, 1]


def shifted(pairs: list[tuple[int, int]], round: int) -> list[tuple[int, int]]:
    """Other pairs for another round: one set of pictures is one question."""
    return pairs[3 * round :]


def test_people_are_not_counted_anew_on_every_look(house: House, owner: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d3po.web.dashboard.FRESH_SECONDS", 60.0)
    ask(house.store, house.pictures)
    vote(owner, 1, outcome="tie")
    assert owner.get("/v1/dashboard").json()["annotators"][0]["votes"] == 1
    vote(owner, 1, outcome="tie")
    data = owner.get("/v1/dashboard").json()
    assert (data["votes"], data["annotators"][0]["votes"]) == (2, 1)


def test_held_out_pictures_show_side_by_side_over_the_rounds(house: House, owner: TestClient) -> None:
    for policy in ("base", "round-000"):
        pictures = [
            NewPicture(prompt=prompt, number=i, path=f"images/held-out/{policy}/{prompt}-{i}.png", sha256="0" * 64)
            for prompt in house.pictures
            for i in range(6)
        ]
        house.store.pictures.add_pictures(
            series=f"held-out/{policy}", origin="evaluation", model="m", policy=policy, seed=0, pictures=pictures
        )
    grids = owner.get("/v1/dashboard").json()["samples"]
    assert [grid["series"] for grid in grids] == ["held-out/base", "held-out/round-000"]
    assert all(grid["prompts"] == PROMPTS and [len(row) for row in grid["images"]] == [4, 4] for grid in grids)


@pytest.mark.parametrize("action", ["pause", "resume", "stop"])
def test_controls_reach_the_trainer_and_the_audit_log(house: House, owner: TestClient, action: str) -> None:
    state = owner.post("/v1/control", json={"action": action}).json()
    assert (state["paused"], state["stop"]) == (action == "pause", action == "stop")
    stored = house.store.journal.current_control()
    assert (stored.paused, stored.stop) == (action == "pause", action == "stop")
    (entry,) = owner.get("/v1/audit").json()["entries"]
    assert (entry["actor"], entry["action"]) == ("owner", action)


def test_train_now_closes_the_round_that_is_under_way(house: House, owner: TestClient) -> None:
    assert owner.post("/v1/control", json={"action": "train_now"}).status_code == 422
    house.store.journal.write("phase", 2, {"phase": "rating"})
    house.store.journal.write("phase", 3, {"phase": "rating"})
    app_state_of(owner).journal._read_at = 0.0
    assert owner.post("/v1/control", json={"action": "train_now"}).json()["train_now_round"] == 3
    assert owner.post("/v1/control", json={"action": "train_now", "round": 2}).json()["train_now_round"] == 2


def test_an_administrator_ends_a_blind_test_and_nobody_else_does(house: House, public: TestClient) -> None:
    pair, *_ = house.pictures.values()
    asked = house.store.questions.ask([NewQuestion(kind="pair", purpose="blind", images=(pair[0], pair[1]), round=None)])
    ada, root = join(public, house), join(public, house, "root", "admin")
    assert ada.post("/v1/control", json={"action": "end_test"}).status_code == 403
    assert house.store.questions.awaited(asked) == 1
    assert root.post("/v1/control", json={"action": "end_test"}).status_code == 200
    assert house.store.questions.awaited(asked) == 0
    assert root.get("/v1/audit").json()["entries"][0]["action"] == "end_test"
    assert root.get("/v1/dashboard").json()["control"] == {"paused": False, "stop": False, "train_now_round": None}


def test_what_people_say_is_a_figure_of_its_own_with_its_answers(house: House, owner: TestClient) -> None:
    write = house.store.journal.write
    write("evaluation", 0, {"rounds": 1, "comparisons": 12, "win_rate": {"value": 0.6, "low": 0.5, "high": 0.7}, "measured": "warmth"})
    write("evaluation", 0, {"rounds": 1, "people": {"value": 1.0, "low": 0.2, "high": 1.0}, "people_answers": 1})
    write("evaluation", 0, {"rounds": 1, "people": {"value": 0.75, "low": 0.3, "high": 0.95}, "people_answers": 4})
    data = owner.get("/v1/dashboard").json()
    curves = {curve["name"]: curve["points"] for curve in data["curves"]}
    assert curves.keys() == {"win_rate", "people"}
    ((people,), (win,)) = curves["people"], curves["win_rate"]
    assert (people["rounds"], people["value"], people["low"], people["high"], people["answers"]) == (1, 0.75, 0.3, 0.95, 4)
    assert win["answers"] is None
    assert data["measured_by"] == "warmth"


def test_who_waits_hears_of_a_pause(house: House, owner: TestClient) -> None:
    house.store.journal.write("phase", 0, {"phase": "training"})
    owner.post("/v1/control", json={"action": "pause"})
    app_state_of(owner).journal._read_at = 0.0
    assert owner.get("/v1/me").json()["phase"] == "paused"


def test_an_invitation_s_link_leads_in(house: House, serve: Serve) -> None:
    public = serve(public_url=ELSEWHERE)
    root = join(public, house, "root", "admin")
    made = root.post("/v1/invitations", json={"handle": "ada", "days": 2})
    assert made.status_code == 201
    link = made.json()["link"]
    assert link.startswith(f"{ELSEWHERE}/join#")
    browser = TestClient(public.app, base_url=ELSEWHERE)
    assert browser.post("/v1/session", json={"token": link.partition("#")[2]}).status_code == 204
    assert browser.get("/v1/me").json()["handle"] == "ada"
    listed = root.get("/v1/invitations").json()["invitations"]
    assert [one["handle"] for one in listed] == ["ada", "root"]
    assert listed[0]["expires_at"] - listed[0]["created_at"] == 2 * 86_400_000
    assert all("token" not in one for one in listed)


def test_nobody_becomes_administrator_by_a_second_invitation(house: House, owner: TestClient) -> None:
    assert owner.post("/v1/invitations", json={"handle": "ada"}).status_code == 201
    reply = owner.post("/v1/invitations", json={"handle": "ada", "role": "admin"})
    assert reply.status_code == 422
    assert "choose another handle" in reply.json()["detail"]


def test_a_tampered_audit_log_shows(house: House, owner: TestClient) -> None:
    for action in ("pause", "resume"):
        owner.post("/v1/control", json={"action": action})
    assert owner.get("/v1/audit").json()["intact"] is True
    with house.store.database.transaction() as connection:
        connection.exec_driver_sql("DROP TRIGGER IF EXISTS audit_log_never_changes")
        for (trigger,) in connection.exec_driver_sql(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'audit_log'"
        ).all():
            connection.exec_driver_sql(f'DROP TRIGGER "{trigger}"')
        connection.exec_driver_sql("UPDATE audit_log SET actor = 'eve' WHERE id = 1")
    assert owner.get("/v1/audit").json()["intact"] is False
