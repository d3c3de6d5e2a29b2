"""The store: everything a run knows about its pictures, the questions asked about them, and the answers (SQLite, or PostgreSQL by URL).

The trainer and the rating server share this and nothing else. Each method of a part is one transaction; what must not happen is made impossible
by the tables' constraints, so several processes may work at once.
"""

from pathlib import Path

from sqlalchemy import URL

from d3po.store.batches import Batches
from d3po.store.casting import Receipt, Retract
from d3po.store.database import Database, file_address
from d3po.store.journal import Audit, AuditEntry, ControlState, Journal, JournalEntry
from d3po.store.people import Annotator, Invitation, NewInvitation, People
from d3po.store.pictures import NewPicture, PictureFile, PictureRecord, Pictures
from d3po.store.questions import Progress, Questions
from d3po.store.votes import Votes
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
    "Pictures",
    "Progress",
    "Questions",
    "Receipt",
    "Retract",
    "Store",
    "Votes",
    "Watermark",
]


class Store:
    """A run's database, by what is done with it.

    Args:
        url: as SQLAlchemy writes it: `sqlite:////path/to/d3po.db` or `postgresql://user@host/name`; or one put together of parts.
        key_file: the key that signs invitations, made when first needed; it may stay away where nobody is invited.
        patience: seconds to wait for another process's lock, or for a server to answer.
        may_be_new: whether it may be one that was never used; one that is not there yet is then made.

    Raises:
        StorageError: the database cannot be opened, lies on a network file system, or was written by a newer d3po.
        CorruptFileError: it is gone or empty, and may not be new.
    """

    def __init__(self, url: str | URL, *, key_file: Path | None = None, patience: float = 5.0, may_be_new: bool = True) -> None:
        self.database = Database(url, patience=patience, may_be_new=may_be_new)
        self.pictures = Pictures(self.database)
        self.questions = Questions(self.database)
        self.votes = Votes(self.database)
        self.batches = Batches(self.database)
        self.people = People(self.database, key_file)
        self.journal = Journal(self.database)
        self.audit = Audit(self.database)

    @classmethod
    def in_folder(cls, folder: Path, *, may_be_new: bool = True) -> "Store":
        """The store of a run folder: `d3po.db` in it, and its key beside it in `d3po.key`."""
        return cls(file_address(folder / "d3po.db"), key_file=folder / "d3po.key", may_be_new=may_be_new)

    def watermark(self) -> Watermark:
        """The newest of what it holds."""
        return watermark(self.database)

    def lacks(self, mark: Watermark) -> list[str]:
        """Of what it lacks something that it held when the mark was taken; empty if it holds all."""
        return missing(self.database, mark)

    def now(self) -> int:
        """Milliseconds since 1970, by a clock that is never set back."""
        return self.database.now()

    def close(self) -> None:
        """Give the connections back."""
        self.database.close()
