"""The high-water mark of a database: the newest row of each table that only grows.

A database that holds these rows holds all that was there when the mark was taken. One that was made anew, restored from an older copy, or copied
without the file that SQLite keeps its newest pages in (`-wal`) does not.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, select

from d3po.store.database import Database
from d3po.store.tables import ImageRow, JournalRow, VoteRow

Row = tuple[int, int | str]


@dataclass(frozen=True, kw_only=True)
class Watermark:
    """The newest rows, each as its number and something that tells it from another row of that number; None where there is none."""

    journal: Row | None = None
    """Id, and when it was written."""
    image: Row | None = None
    """Id, and the hash of the file."""
    vote: Row | None = None
    """Order of arrival, and id."""


COLUMNS = {
    "journal": (JournalRow.id, JournalRow.at),
    "image": (ImageRow.id, ImageRow.sha256),
    "vote": (VoteRow.sequence, VoteRow.id),
}
WORDS = {"journal": "entries of the journal", "image": "pictures", "vote": "votes"}


def watermark(database: Database) -> Watermark:
    """Of the database as it is."""
    with database.reading() as connection:
        return Watermark(**{name: _newest(connection, name) for name in COLUMNS})


def missing(database: Database, mark: Watermark) -> list[str]:
    """Of what the database lacks a row of the mark, in words."""
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
