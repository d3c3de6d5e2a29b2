"""What trainer and dashboard tell each other through the database, and the administrators' audit log."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Select, insert, select, text

from d3po.store.database import Database
from d3po.store.tables import AuditRow, ControlRow, JournalRow

EntryKind = Literal["phase", "evaluation", "update", "alarm"]
Action = Literal["pause", "resume", "stop", "train_now"]

FIRST_HASH = "0" * 64
"""What the first entry of the audit log names as the one before it."""


@dataclass(frozen=True, kw_only=True)
class JournalEntry:
    """Something the trainer said."""

    id: int
    at: int
    kind: EntryKind
    round: int | None
    body: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ControlState:
    """What the dashboard wants of the trainer."""

    paused: bool = False
    stop: bool = False
    train_now_round: int | None = None
    """The round to be trained on the votes it has."""


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """Something an administrator did."""

    id: int
    at: int
    actor: str
    action: str
    detail: Mapping[str, Any]
    previous_hash: str
    hash: str


class Journal:
    """From the trainer to the dashboard, and back; each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, kind: EntryKind, round: int | None, body: Mapping[str, Any]) -> None:
        """Say something to the dashboard; `body` is JSON."""
        columns = {"at": self._database.now(), "kind": kind, "round": round, "body": dict(body)}
        self._database.write(lambda connection: connection.execute(insert(JournalRow).values(columns)))

    def read(self, *, after: int = 0, kind: EntryKind | None = None, limit: int | None = None) -> list[JournalEntry]:
        """What was said, oldest first: with ids above `after`, of one kind, at most so many."""
        query = select(JournalRow.id, JournalRow.at, JournalRow.kind, JournalRow.round, JournalRow.body).where(JournalRow.id > after)
        if kind is not None:
            query = query.where(JournalRow.kind == kind)
        with self._database.reading() as connection:
            return [JournalEntry(**row) for row in connection.execute(query.order_by(JournalRow.id).limit(limit)).mappings()]

    def last(self, kind: EntryKind) -> JournalEntry | None:
        """The newest entry of a kind."""
        query = select(JournalRow.id, JournalRow.at, JournalRow.kind, JournalRow.round, JournalRow.body).where(JournalRow.kind == kind)
        with self._database.reading() as connection:
            row = connection.execute(query.order_by(JournalRow.id.desc()).limit(1)).mappings().one_or_none()
        return None if row is None else JournalEntry(**row)

    def control(self, action: Action, annotator: int, round: int | None = None) -> None:
        """Tell the trainer something; `round` is the one that train_now closes."""
        columns = {"at": self._database.now(), "annotator_id": annotator, "action": action, "round": round}
        self._database.write(lambda connection: connection.execute(insert(ControlRow).values(columns)))

    def current_control(self) -> ControlState:
        """What all that was told so far comes to: the newest of pause, resume and stop counts, and the newest train_now."""
        state = select(ControlRow.action).where(ControlRow.action != "train_now").order_by(ControlRow.id.desc()).limit(1)
        now = select(ControlRow.round).where(ControlRow.action == "train_now").order_by(ControlRow.id.desc()).limit(1)
        with self._database.reading() as connection:
            action = connection.execute(state).scalar_one_or_none()
            round = connection.execute(now).scalar_one_or_none()
        return ControlState(paused=action == "pause", stop=action == "stop", train_now_round=round)


class Audit:
    """The administrators' log: append-only, each entry chained to the one before by its hash."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, actor: str, action: str, detail: Mapping[str, Any]) -> None:
        """Record that the actor did something; `detail` is JSON."""
        self._database.write(lambda connection: append_entry(connection, self._database.now(), actor, action, detail))

    def newest(self, limit: int) -> list[AuditEntry]:
        """The last entries, newest first."""
        with self._database.reading() as connection:
            return [AuditEntry(**row) for row in connection.execute(_entries().order_by(AuditRow.id.desc()).limit(limit)).mappings()]

    def verify(self) -> bool:
        """Whether every entry is as it was written and follows on the one before. That the newest were cut off does not show in the chain."""
        query = _entries().order_by(AuditRow.id).execution_options(yield_per=500)
        with self._database.reading() as connection, connection.execute(query) as result:
            return _is_chain(result.mappings())


def append_entry(connection: Connection, at: int, actor: str, action: str, detail: Mapping[str, Any]) -> None:
    """Add an entry to the audit log, in the transaction of what it is about."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("LOCK TABLE audit_log IN EXCLUSIVE MODE"))  # an entry has one successor
    newest = select(AuditRow.hash).order_by(AuditRow.id.desc()).limit(1)
    previous = connection.execute(newest).scalar_one_or_none() or FIRST_HASH
    columns = {"at": at, "actor": actor, "action": action, "detail": dict(detail), "previous_hash": previous}
    connection.execute(insert(AuditRow).values(columns | {"hash": _chained(columns)}))


def _is_chain(entries: Iterable[Any]) -> bool:
    previous = FIRST_HASH
    for entry in entries:
        columns = {name: entry[name] for name in ("at", "actor", "action", "detail", "previous_hash")}
        if entry["previous_hash"] != previous or entry["hash"] != _chained(columns):
            return False
        previous = entry["hash"]
    return True


def _entries() -> Select[*tuple[Any, ...]]:
    return select(*AuditRow.__table__.columns)


def _chained(columns: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(columns, sort_keys=True).encode()).hexdigest()
