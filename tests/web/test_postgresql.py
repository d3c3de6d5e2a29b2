"""The same server on PostgreSQL: votes go in, and a database that goes away and comes back loses none."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from d3po.store import Store
from d3po.web.app import create_app
from d3po.web.settings import WebSettings
from tests.postgresql import Server, start
from tests.web.conftest import HERE
from tests.web.test_label_api import ballot, questions
from tests.web.world import add_pictures, ask


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that a test may stop."""
    server = start()
    if server is None:
        pytest.skip("no PostgreSQL server is installed; `python -m tools.postgresql` installs Debian's as root")
    yield server
    server.remove()


@pytest.mark.slow
def test_votes_outlast_a_database_that_goes_away(server: Server, tmp_path: Path) -> None:
    store = Store(server.database(), key_file=tmp_path / "d3po.key", patience=1.0)
    ask(store, add_pictures(store, tmp_path))
    with TestClient(create_app(store, WebSettings(run="run", images=str(tmp_path))), base_url=HERE) as client:
        assert client.post("/v1/session", json={"token": store.people.invite_owner().token}).status_code == 204
        items = questions(client, 4)
        assert [client.post("/v1/votes", json=ballot(item, outcome="win", position=0)).status_code for item in items[:2]] == [201, 201]
        waiting = ballot(items[2], outcome="tie")
        server.stop("immediate")
        reply = client.post("/v1/votes", json=waiting)
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "2")
        assert client.get("/v1/queue").status_code == 503
        assert client.get("/healthz").status_code == 503
        server.start_again()
        assert client.post("/v1/votes", json=waiting).status_code == 201
        assert client.get("/v1/me").json()["done"] == 3
        assert client.get("/v1/dashboard").json()["votes"] == 3
    store.close()
