"""The store: a run's database of pictures, the questions asked about them, and the answers (SQLite, or PostgreSQL by URL).

The trainer and the rating server share the store and the pictures, and nothing else. Each method of a part is one transaction. Invalid states are made
impossible by the tables' constraints, so several processes may work at once.
"""

from pathlib import Path

from sqlalchemy import URL

from d3po.store.batches import Batches
from d3po.store.casting import Receipt, Retract
from d3po.store.database import Database, file_address
from d3po.store.journal import Audit, AuditEntry, ControlState, Journal, JournalEntry
from d3po.store.people import Annotator, Invitation, NewInvitation, People
from d3po.store.pictures import NewPicture, PictureFile, PictureRecord, PictureStore
from d3po.store.questions import Progress, Questions
from d3po.store.votes import VoteStore
from d3po.store.watermark import Watermark, missing, watermark

__all__ = [
    "Annotator",
    "Audit",
    "AuditEntry",
    "Batches",
    "ControlState",
    "Database",
    "Invitation",
    "Journal",
    "JournalEntry",
    "NewInvitation",
    "NewPicture",
    "People",
    "PictureFile",
    "PictureRecord",
    "PictureStore",
    "Progress",
    "Questions",
    "Receipt",
    "Retract",
    "Store",
    "VoteStore",
    "Watermark",
]


class Store:
    """A run's database, with an attribute for each part of it.

    Args:
        url: the address, as SQLAlchemy writes it (`sqlite:////path/to/d3po.db` or `postgresql://user@host/name`), or as a `URL`.
        key_file: file of the key that signs invitations, made when first needed; None if nobody is invited.
        patience: seconds to wait for another process's lock, or for a server to answer.
        may_be_new: whether the database may be empty or missing, in which case it is made.

    Raises:
        StorageError: the database cannot be opened, is on a network file system, or was written by a newer d3po.
        CorruptFileError: the database is missing or empty, and may not be new.
    """

    def __init__(self, url: str | URL, *, key_file: Path | None = None, patience: float = 5.0, may_be_new: bool = True) -> None:
        self.database = Database(url, patience=patience, may_be_new=may_be_new)
        self.pictures = PictureStore(self.database)
        self.questions = Questions(self.database)
        self.votes = VoteStore(self.database)
        self.batches = Batches(self.database)
        self.people = People(self.database, key_file)
        self.journal = Journal(self.database)
        self.audit = Audit(self.database)

    @classmethod
    def in_folder(cls, folder: Path, *, may_be_new: bool = True) -> "Store":
        """The store of a run folder: `d3po.db` and the key `d3po.key` in that folder."""
        return cls(file_address(folder / "d3po.db"), key_file=folder / "d3po.key", may_be_new=may_be_new)

    def watermark(self) -> Watermark:
        """The newest picture, vote and journal entry."""
        return watermark(self.database)

    def lacks(self, mark: Watermark) -> list[str]:
        """The kinds of entries that the database had when the mark was taken and lacks now, in words; empty if it has them all."""
        return missing(self.database, mark)

    def now(self) -> int:
        """Milliseconds since 1970, by a clock that never goes back."""
        return self.database.now()

    def close(self) -> None:
        """Close the connections."""
        self.database.close()
