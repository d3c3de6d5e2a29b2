"""The migrations of the schema (Alembic): a database of any revision is upgraded to the newest when it is opened.

Alembic is imported only for an upgrade. Most databases are at the newest revision, which takes one query to find out.
"""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from d3po.errors import StorageError

HEAD = "0003"
"""The newest revision: the tables that `d3po.store.tables` describes."""


def revision_of(connection: Connection) -> str | None:
    """The revision of a database's tables; None if it has none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.scalar(text("SELECT version_num FROM alembic_version"))


def upgrade(connection: Connection, *, name: str) -> None:
    """Upgrade the database to the newest revision, within the connection's transaction; `name` is the database's name for messages.

    Raises:
        StorageError: the database has a newer or an unknown revision.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(3043)"))  # if two processes open a new database at once, one makes the tables
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
