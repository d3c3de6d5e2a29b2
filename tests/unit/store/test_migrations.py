"""The schema's history: models and migrations agree, on both databases, and opening brings a database of any age to the newest tables."""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.exc import IntegrityError

from d3po.errors import StorageError
from d3po.preferences.records import Answer
from d3po.store import Store, migrations
from d3po.store.tables import Base
from tests.postgresql import Server
from tests.unit.store.stores import fill, human, pair, vote

ROOT = Path(__file__).parents[3]
FOLDER = Path(migrations.__file__).parent


def differences(connection: Connection) -> list[Any]:
    """What alembic would change, except comments, which are the models' documentation and not kept in databases."""
    found = compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), Base.metadata)
    return [change for change in found if not (isinstance(change, list) and change[0][0] == "modify_comment")]


def checks(connection: Connection) -> dict[str, list[tuple[str | None, str]]]:
    """Each table's check constraints, which alembic does not compare."""
    tables = inspect(connection)
    return {
        table: sorted((check["name"] or "", check["sqltext"]) for check in tables.get_check_constraints(table))
        for table in Base.metadata.tables
    }


def test_the_migrations_make_the_tables_of_the_models(store: Store) -> None:
    with store.database.reading() as connection:
        assert differences(connection) == []


def test_the_migrations_make_the_checks_and_partial_indexes_of_the_models(
    store: Store, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'models.db'}"
    if store.database.is_postgresql:
        server: Server = request.getfixturevalue("postgresql")
        url = server.database().replace("postgresql:", "postgresql+psycopg:")
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    with store.database.reading() as migrated, engine.connect() as modelled:
        assert checks(migrated) == checks(modelled)
        for table in Base.metadata.tables:
            assert indexes(migrated, table) == indexes(modelled, table)
    engine.dispose()


def indexes(connection: Connection, table: str) -> dict[str | None, tuple[Any, ...]]:
    found = inspect(connection).get_indexes(table)
    return {
        index["name"]: (
            index["column_names"],
            bool(index["unique"]),
            str(index.get("dialect_options", {}).get(f"{connection.dialect.name}_where")),
        )
        for index in found
    }


def test_the_newest_revision_is_the_last_script() -> None:
    assert ScriptDirectory(str(FOLDER)).get_heads() == [migrations.HEAD]


def test_a_database_at_the_newest_revision_is_opened_without_alembic(tmp_path: Path) -> None:
    Store.in_folder(tmp_path).close()
    code = (
        "import sys, pathlib; from d3po.store import Store; Store.in_folder(pathlib.Path(sys.argv[1])).close(); "
        "print('alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_a_database_of_a_newer_d3po_is_refused(store: Store, url: str) -> None:
    with store.database.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StorageError, match=r"newer d3po .* revision 9999.* update d3po"):
        Store(url)


def test_tables_without_a_history_are_refused(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'd3po.db'}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE prompt (id INTEGER PRIMARY KEY, text VARCHAR)"))
    engine.dispose()
    with pytest.raises(StorageError, match="start a new run folder"):
        Store.in_folder(tmp_path)


def test_an_older_database_is_brought_to_today_with_all_that_is_in_it(store: Store, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = request.getfixturevalue("postgresql").database() if store.database.is_postgresql else f"sqlite:///{tmp_path / 'old.db'}"
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(FOLDER))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(text("INSERT INTO prompt (id, text, text_hash) VALUES (1, 'a cat', 'c0ffee')"))
        connection.execute(
            text(
                "INSERT INTO question (id, kind, purpose, prompt_id, round, dedup_key, overlap, open_slots, priority) "
                "VALUES (7, 'pair', 'train', 1, 0, 'key', 1, 1, 0)"
            )
        )
    engine.dispose()
    newer = Store(url)
    with newer.database.reading() as connection:
        assert differences(connection) == []
        assert migrations.revision_of(connection) == migrations.HEAD
        with store.database.reading() as fresh:
            assert checks(connection) == checks(fresh)
    assert [(each.id, each.probability) for each in newer.questions.asked(0)] == [(7, None)]
    with newer.database.transaction() as connection:
        connection.execute(text("UPDATE question SET purpose = 'repeat'"))
    with pytest.raises(IntegrityError, match="purpose_known"), newer.database.transaction() as connection:
        connection.execute(text("UPDATE question SET purpose = 'other'"))
    newer.close()


@pytest.mark.parametrize("table", ["vote", "vote_item", "feedback_batch_vote", "audit_log"])
@pytest.mark.parametrize("change", ["UPDATE {} SET {} = {}", "DELETE FROM {}"])
def test_events_can_neither_be_changed_nor_deleted(store: Store, table: str, change: str) -> None:
    (a, b, _), *_ = fill(store)
    store.questions.ask([pair(a, b)])
    ada = human(store, "ada")
    (assigned,) = store.questions.lease(ada, 1)
    vote(store, assigned, ada, Answer(outcome="share", values={a: 0.25, b: 0.75}))
    store.batches.claim(0)
    store.audit.append("ada", "invite", {"handle": "bob"})
    column = {"vote": "client", "vote_item": "value", "feedback_batch_vote": "batch_id", "audit_log": "actor"}[table]
    with pytest.raises(IntegrityError, match=f"{table} is append-only"), store.database.transaction() as connection:
        connection.execute(text(change.format(table, column, column)))


def test_the_wheel_brings_the_migrations(tmp_path: Path) -> None:
    """hatchling decides what goes into a wheel; it is asked, not guessed at."""
    if importlib.util.find_spec("hatchling") is None:
        build = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--disable-pip-version-check",
            "--wheel-dir",
            str(tmp_path),
            str(ROOT),
        ]
    else:
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, check=True, cwd=ROOT, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    scripts = {f"d3po/store/migrations/{path.relative_to(FOLDER)}" for path in FOLDER.rglob("*.py")}
    assert len(scripts) >= 3
    assert scripts <= packed
