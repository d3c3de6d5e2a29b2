"""A run's database: opening it, migrating it to the newest schema, and short transactions on it.

One database serves the trainer, the rating server and every reader: SQLite (a file, on one machine) or PostgreSQL. Changes by other processes become
visible between transactions, never within one.
"""

import random
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy import exc as sql
from sqlalchemy.dialects import postgresql, sqlite

from d3po.errors import CorruptFileError, StorageError
from d3po.store import migrations
from d3po.store.clock import Clock, newest_time
from d3po.store.tables import Base

Result = TypeVar("Result")
Item = TypeVar("Item")

ATTEMPTS = 20
"""The most tries of a transaction that collides with other writers' transactions."""

CACHE_KIB = 16 * 1024
"""Size of a connection's page cache of an SQLite file; with the default 2 MiB, queries among a million votes read from disk all the time."""

SYNCHRONOUS = "FULL"
"""An SQLite file's transactions are on the disk when they end, so that not even a power cut loses a vote."""

NETWORK_FILE_SYSTEMS = frozenset(
    {"9p", "afpfs", "afs", "beegfs", "ceph", "cifs", "davfs", "fuse.glusterfs", "fuse.sshfs", "glusterfs", "gpfs", "lustre"}
    | {"ncpfs", "nfs", "nfs3", "nfs4", "orangefs", "smb2", "smb3", "smbfs", "webdav"}
)
"""File systems whose locks SQLite cannot trust, and that lack the shared memory that WAL needs."""

GONE = (
    "the database {name} is gone or empty, but there is work that counts on it; put it back, together with the files of its name and -wal or -shm "
    "that lay beside it; if it is lost, start a new run folder"
)
"""The message about a database that must exist but is missing or empty."""

COLLISIONS = frozenset({"40001", "40P01"})
"""PostgreSQL's codes for a serialization failure and a deadlock, after which the same transaction can be tried again."""


class CollisionError(StorageError):
    """A transaction collided with another writer's and was rolled back."""


class Database:
    """The connections to one database, and its clock.

    Args:
        url: the address, as SQLAlchemy writes it (`sqlite:////path/to/d3po.db` or `postgresql://user@host/name`), or as a `URL`.
        patience: seconds to wait for another process's lock, or for a server to answer.
        may_be_new: whether the database may be empty or missing, in which case it is made.

    Raises:
        StorageError: the database cannot be opened, is on a network file system, or was written by a newer d3po.
        CorruptFileError: the database is missing or empty, and may not be new.
    """

    def __init__(self, url: str | URL, *, patience: float = 5.0, may_be_new: bool = True) -> None:
        self.address = address_of(url) if isinstance(url, str) else url
        self.is_postgresql = self.address.get_backend_name() == "postgresql"
        self.file = None if self.is_postgresql else Path(str(self.address.database))
        """The file of an SQLite database; None for PostgreSQL."""
        self.name = str(self.file or self.address.set(query={}).render_as_string(hide_password=True))
        if self.file is not None:
            refuse_network_file_system(self.file)
            if not may_be_new and not _has_content(self.file):
                raise CorruptFileError(GONE.format(name=self.name))
        self.engine = _engine(self.address, patience)
        self._turn = threading.RLock()
        try:
            self._bring_to_head(may_be_new)
            with self.reading() as connection:
                self._clock = Clock(newest_time(connection))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    def require_sound(self) -> None:
        """Check the integrity of all pages of an SQLite file; a PostgreSQL server is not checked.

        Raises:
            CorruptFileError: the file is damaged.
        """
        if self.is_postgresql:
            return
        with self.reading() as connection:
            said = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
        if said != "ok":
            raise CorruptFileError(f"the database {self.name} is damaged ({' '.join(said.split())}); restore it from a copy")

    def now(self) -> int:
        """Milliseconds since 1970; never less than any time in the database, even when the machine's clock is set back."""
        return self._clock.now()

    @contextmanager
    def transaction(self) -> Generator[Connection, None, None]:
        """A transaction that writes. It is committed when the block ends and rolled back if the block raises.

        SQLite has one writer at a time: threads of this process take turns, other processes' locks are waited for up to `patience` seconds.

        Raises:
            StorageError: the disk is full or not writable, the database is locked by another process, or its server is away.
        """
        if self.is_postgresql:
            with self._begin(writes=True) as connection:
                yield connection
        else:
            with self._turn, self._begin(writes=True) as connection:
                yield connection

    @contextmanager
    def reading(self) -> Generator[Connection, None, None]:
        """A transaction that only reads. On SQLite it sees one state throughout and never waits.

        Raises:
            StorageError: as for `transaction`.
        """
        with self._begin(writes=False) as connection:
            yield connection

    def write(self, work: Callable[[Connection], Result], *, attempts: int = ATTEMPTS) -> Result:
        """Run `work` in a transaction that writes. If it collides with a concurrent writer, roll back and run `work` again.

        Raises:
            StorageError: as for `transaction`, or the transaction collided `attempts` times.
        """
        for attempt in range(attempts):
            try:
                with self.transaction() as connection:
                    return work(connection)
            except (sql.IntegrityError, CollisionError):
                if not self.is_postgresql or attempt == attempts - 1:
                    raise
                time.sleep(random.uniform(0, 0.005) * (attempt + 1))
        raise AssertionError("the last attempt returns or raises")

    @contextmanager
    def _begin(self, *, writes: bool) -> Generator[Connection, None, None]:
        with _one_line(self.name), self.engine.connect() as connection:
            connection.execution_options(d3po_writes=writes)
            with connection.begin():
                yield connection

    def _bring_to_head(self, may_be_new: bool) -> None:
        with self.reading() as connection:
            revision = migrations.revision_of(connection)
        if revision == migrations.HEAD:
            return
        if revision is None and not may_be_new:
            raise CorruptFileError(GONE.format(name=self.name))
        with self.transaction() as connection:
            migrations.upgrade(connection, name=self.name)


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def refuse_network_file_system(path: Path) -> None:
    """Refuse an SQLite file on a file system where SQLite's locks do not work; the file need not exist yet.

    Raises:
        StorageError: the file is on a network file system.
    """
    place = path.absolute().resolve()
    kinds = {Path(each.mountpoint): each.fstype for each in psutil.disk_partitions(all=True)}
    mount = next((parent for parent in (place, *place.parents) if parent in kinds), None)
    if mount is not None and kinds[mount].lower() in NETWORK_FILE_SYSTEMS:
        raise StorageError(
            f"{path} is on {mount}, a network file system ({kinds[mount]}), where SQLite's locks do not work and votes could be lost; "
            "use a local disk, or a postgresql:// database"
        )


def file_address(path: Path) -> URL:
    """The address of an SQLite file. It is not made from URL text, where `?` and `%` in a path would have another meaning."""
    return URL.create("sqlite", database=str(path))


def address_of(url: str) -> URL:
    """Parse the URL of a database.

    Raises:
        StorageError: it is not the URL of an SQLite or PostgreSQL database, or names no file.
    """
    try:
        address = make_url(url)
    except (sql.ArgumentError, ValueError) as error:  # ValueError if the port is no number
        raise StorageError(f"{url!r} is not a database URL; write sqlite:////path/to/d3po.db or postgresql://user@host/name") from error
    if address.get_backend_name() == "postgresql":
        return address.set(drivername="postgresql+psycopg")
    if address.get_backend_name() != "sqlite":
        raise StorageError(f"the database is {address.get_backend_name()!r}; d3po works with sqlite and postgresql")
    if address.host or "?" in url or "\0" in url or address.database in (None, "", ":memory:"):
        raise StorageError(
            f"{url!r} is not the URL of an SQLite file; write sqlite:////path/to/d3po.db, with three slashes before the path, %3F for a ? in it "
            "and %25 for a %"
        )
    return file_address(Path(str(address.database)))


def _engine(address: URL, patience: float) -> Engine:
    if address.get_backend_name() == "postgresql":
        waiting = {"connect_timeout": max(2, round(patience)), "options": f"-c lock_timeout={round(patience * 1000)}"}
        try:
            return create_engine(address, pool_size=10, max_overflow=30, pool_pre_ping=True, connect_args=waiting)
        except ModuleNotFoundError as error:
            raise StorageError("a postgresql:// database needs psycopg; `pip install d3po[postgres]`") from error
    engine = create_engine(address, connect_args={"timeout": patience})
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_pragmas(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions; _begin_sqlite does
    for pragma in (
        "journal_mode=WAL",
        f"synchronous={SYNCHRONOUS}",
        "foreign_keys=ON",
        "recursive_triggers=ON",
        f"cache_size=-{CACHE_KIB}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """Begin a transaction; one that writes takes the write lock at once, since SQLite does not wait for a lock after a transaction has read."""
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options()["d3po_writes"] else "BEGIN")


@contextmanager
def _one_line(name: str) -> Generator[None, None, None]:
    """Turn errors of the disk, the lock or the server into a `StorageError` of one line; other database errors pass through."""
    try:
        yield
    except sql.TimeoutError as error:
        raise StorageError(f"{name} is busy: no connection became free; nothing was changed, try again") from error
    except sql.DBAPIError as error:
        explained = next(filter(None, (_explained(name, each) for each in _led_to(error))), None)
        if explained is None:
            raise
        raise explained from error


def _led_to(error: BaseException | None) -> Iterator[sql.DBAPIError]:
    """The error, and the errors during whose handling it was raised.

    For example, a full disk makes SQLite roll back the transaction, after which returning to a savepoint fails.
    """
    while error is not None:
        if isinstance(error, sql.DBAPIError):
            yield error
        error = error.__context__


def _explained(name: str, error: sql.DBAPIError) -> StorageError | None:
    code = getattr(error.orig, "sqlstate", None)
    if isinstance(error.orig, sqlite3.Error):
        return _explained_sqlite(name, error, error.orig)
    if code in COLLISIONS:
        return CollisionError(f"{name}: a change collided with another writer's and was not made; try again")
    if code in ("53100", "53200"):
        return StorageError(f"{name}: the server's disk or memory is full; what was saved before is whole; free some space and try again")
    if code == "55P03":
        return StorageError(f"{name} is locked by another connection; nothing was changed, try again")
    if isinstance(error, sql.OperationalError) or (
        code is None and isinstance(error, sql.ProgrammingError)
    ):  # the latter if libpq refuses the URL
        return StorageError(f"{name} cannot be reached ({_first_line(error)}); check that the server runs and try again")
    return None


def _explained_sqlite(name: str, error: sql.DBAPIError, orig: sqlite3.Error) -> StorageError | None:
    primary = getattr(orig, "sqlite_errorcode", 0) & 0xFF
    match primary:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StorageError(f"{name} is locked by another process; nothing was changed, try again when it is done")
        case sqlite3.SQLITE_FULL:
            return StorageError(f"cannot write {name}: the disk is full; what was saved before is whole; free some space and try again")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return StorageError(f"cannot open or write {name}: {_first_line(error)}; check that the folder exists and is writable")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StorageError(f"{name} is damaged or not a database: {_first_line(error)}; restore it from a copy")
        case _:
            return None


def _first_line(error: sql.DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0]


def insert_new(connection: Connection, table: type[Base], rows: Sequence[Mapping[str, object]]) -> None:
    """Insert the rows that violate no unique constraint, and skip the others."""
    if not rows:
        return
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(insert(table).on_conflict_do_nothing(), list(rows))


def chunks(items: Sequence[Item], size: int = 500) -> Iterator[Sequence[Item]]:
    """Split the items into parts that fit into one statement's list of values."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
