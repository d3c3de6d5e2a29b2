"""The high-water mark of a database: the newest row of each table that only grows.

A database that contains these rows contains everything that it did when the mark was taken. A new database, an older copy, or a copy without the file in
which SQLite keeps its newest pages (`-wal`) does not contain them.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, select

from d3po.store.database import Database
from d3po.store.tables import ImageRow, JournalRow, VoteRow

Row = tuple[int, int | str]
"""A row's number, and a second value that distinguishes it from the row with that number in another database."""


@dataclass(frozen=True, kw_only=True)
class Watermark:
    """The newest row of each table; None where a table is empty."""

    journal: Row | None = None
    """Id, and time of writing."""
    image: Row | None = None
    """Id, and hash of the file."""
    vote: Row | None = None
    """Sequence number, and id."""


COLUMNS = {
    "journal": (JournalRow.id, JournalRow.at),
    "image": (ImageRow.id, ImageRow.sha256),
    "vote": (VoteRow.sequence, VoteRow.id),
}
WORDS = {"journal": "entries of the journal", "image": "pictures", "vote": "votes"}


def watermark(database: Database) -> Watermark:
    """The watermark of the database as it is now."""
    with database.reading() as connection:
        return Watermark(**{name: _newest(connection, name) for name in COLUMNS})


def missing(database: Database, mark: Watermark) -> list[str]:
    """The kinds of entries, in words, of which the database lacks the mark's row; empty if it has them all."""
    rows = {name: getattr(mark, name) for name in COLUMNS}
    with database.reading() as connection:
        return [WORDS[name] for name, row in rows.items() if row is not None and not _holds(connection, name, row)]


def _newest(connection: Connection, name: str) -> Row | None:
    number, identity = COLUMNS[name]
    row = connection.execute(select(number, identity).order_by(number.desc()).limit(1)).one_or_none()
    return None if row is None else (row[0], row[1])


def _holds(connection: Connection, name: str, row: Row) -> bool:
    number, identity = COLUMNS[name]
    return connection.execute(select(identity).where(number == row[0])).scalar_one_or_none() == row[1]
