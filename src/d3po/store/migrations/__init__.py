"""The schema's history (Alembic): a database of any age is brought to the newest tables when it is opened.

Alembic is imported only when there is something to bring up: most openings find the newest revision and ask one question.
"""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from d3po.errors import StorageError

HEAD = "0003"
"""The newest revision: the tables that `d3po.store.tables` describes."""


def revision_of(connection: Connection) -> str | None:
    """The revision a database stands at; None if it was never brought to one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.scalar(text("SELECT version_num FROM alembic_version"))


def upgrade(connection: Connection, *, name: str) -> None:
    """Bring the database to the newest revision, all of it or nothing, within the connection's transaction.

    Raises:
        StorageError: it is of a newer or of no known revision; `name` says in the message which database.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(3043)"))  # of two that open a new database at once, one makes the tables
    revision = revision_of(connection)
    if revision == HEAD:
        return
    if revision is None and inspect(connection).has_table("prompt"):
        raise StorageError(f"{name} holds tables from before d3po kept a history of them; start a new run folder")
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    if revision is not None and revision not in {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}:
        raise StorageError(f"{name} was written by a newer d3po (its tables are at revision {revision}); update d3po to open it")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
