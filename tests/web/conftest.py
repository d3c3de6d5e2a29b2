"""A served run: a folder with a store, pictures and questions, and clients of its app."""

import shutil
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import select
from starlette.testclient import TestClient

from d3po.preferences.records import Role
from d3po.store import Store
from d3po.store.tables import AssignmentRow
from d3po.web.app import create_app
from d3po.web.app_state import AppState
from d3po.web.settings import WebSettings
from tests.web.world import add_pictures

HERE = "http://127.0.0.1:8000"
ELSEWHERE = "https://rate.example.org"


@dataclass(frozen=True, kw_only=True)
class House:
    """A run folder and its store."""

    folder: Path
    store: Store
    pictures: dict[int, list[int]]
    """Image ids by prompt id."""

    def shown(self, item: Mapping[str, Any]) -> list[int]:
        """The image ids of a question from the queue, in the order shown; only the store knows them."""
        with self.store.database.reading() as connection:
            return list(connection.execute(select(AssignmentRow.shown).where(AssignmentRow.id == item["assignment"])).scalar_one())

    def file(self, image: int) -> Path:
        """Where a picture is kept."""
        found = self.store.pictures.picture(image)
        assert found is not None
        return self.folder / found.path

    def settings(self, **changes: Any) -> WebSettings:
        return replace(WebSettings(run="run", images=str(self.folder)), **changes)


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, list[int]]]:
    """A run with pictures, to be copied: making a store takes longer than most tests."""
    folder = tmp_path_factory.mktemp("furnished")
    store = Store.in_folder(folder)
    pictures = add_pictures(store, folder)
    store.close()
    return folder, pictures


@pytest.fixture
def house(furnished: tuple[Path, dict[int, list[int]]], tmp_path: Path) -> Generator[House, None, None]:
    """A run with pictures and no questions yet."""
    shutil.copytree(furnished[0], tmp_path, dirs_exist_ok=True)
    store = Store.in_folder(tmp_path)
    yield House(folder=tmp_path, store=store, pictures=furnished[1])
    store.close()


Serve = Callable[..., TestClient]


@pytest.fixture
def serve(house: House) -> Generator[Serve, None, None]:
    """Start an app on the house; settings may be changed. The client has opened the owner's link, except on another address than this machine's."""
    started: list[TestClient] = []

    def start(**changes: object) -> TestClient:
        settings = house.settings(**changes)
        client = TestClient(create_app(house.store, settings), base_url=settings.public_url or HERE)
        client.__enter__()
        started.append(client)
        if not {"host", "public_url"} & changes.keys():
            sign_in(client, house)
        return client

    yield start
    for client in started:
        client.__exit__(None, None, None)


@pytest.fixture
def owner(serve: Serve) -> TestClient:
    """The owner's client on 127.0.0.1."""
    return serve()


@pytest.fixture
def public(serve: Serve) -> TestClient:
    """A stranger's client on a public address, where everybody needs an invitation."""
    return serve(public_url=ELSEWHERE)


def app_of(client: TestClient) -> FastAPI:
    assert isinstance(client.app, FastAPI)
    return client.app


def app_state_of(client: TestClient) -> AppState:
    return app_of(client).state.app_state


def sign_in(client: TestClient, house: House) -> None:
    """Open the owner's link in this browser."""
    assert client.post("/v1/session", json={"token": house.store.people.invite_owner().token}).status_code == 204


def newcomer(client: TestClient) -> TestClient:
    """Another browser at the same server, without cookies."""
    return TestClient(client.app, base_url=str(client.base_url))


def join(client: TestClient, house: House, handle: str = "ada", role: Role = "annotator") -> TestClient:
    """A new browser that has used an invitation."""
    token = house.store.people.invite(handle, role).token
    browser = newcomer(client)
    assert browser.post("/v1/session", json={"token": token}).status_code == 204
    return browser
