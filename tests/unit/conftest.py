"""Every test of the store runs on SQLite and on a PostgreSQL server of its own."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from d3po.store import Store
from d3po.store.migrations import HEAD
from d3po.store.tables import Base
from tests.postgresql import Server, start


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A running server."""
    server = start()
    if server is None:
        pytest.skip("no PostgreSQL server is installed; `python -m tools.postgresql` installs Debian's as root")
    yield server
    server.remove()


@pytest.fixture(scope="session")
def postgresql_url(postgresql: Server) -> str:
    """A database of that server with today's tables."""
    url = postgresql.database()
    Store(url).close()
    return url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with today's tables and nothing in them."""
    folder = tmp_path_factory.mktemp("template")
    Store.in_folder(folder).close()
    return folder / "d3po.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "d3po.db")
        return f"sqlite:///{tmp_path / 'd3po.db'}"
    return emptied(request.getfixturevalue("postgresql_url"))


def emptied(url: str) -> str:
    """The PostgreSQL database without its rows; a database for each test would take longer to copy and to remove."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), connect_args={"options": "-c lock_timeout=5000"})
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # else the append-only tables would refuse
        connection.execute(text(f"TRUNCATE {', '.join(Base.metadata.tables)} RESTART IDENTITY"))
        connection.execute(text("UPDATE alembic_version SET version_num = :head"), {"head": HEAD})
    engine.dispose()
    return url


@pytest.fixture
def store(url: str, tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    store = Store(url, key_file=tmp_path / "d3po.key")
    yield store
    store.close()


@pytest.fixture
def postgresql_store(postgresql_url: str) -> Iterator[Store]:
    """An empty store on PostgreSQL, for what SQLite cannot do."""
    store = Store(emptied(postgresql_url))
    yield store
    store.close()
