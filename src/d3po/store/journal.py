"""Messages between trainer and dashboard through the database, and the audit log of administrators' actions."""

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
"""The hash that the first entry of the audit log has as its predecessor's."""


@dataclass(frozen=True, kw_only=True)
class JournalEntry:
    """A message from the trainer to the dashboard."""

    id: int
    at: int
    kind: EntryKind
    round: int | None
    body: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ControlState:
    """What the dashboard currently asks of the trainer."""

    paused: bool = False
    stop: bool = False
    train_now_round: int | None = None
    """The round that is to be trained with the votes that it has."""


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """An action of an administrator."""

    id: int
    at: int
    actor: str
    action: str
    detail: Mapping[str, Any]
    previous_hash: str
    hash: str


class Journal:
    """Messages from the trainer to the dashboard and back; each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, kind: EntryKind, round: int | None, body: Mapping[str, Any]) -> None:
        """Write a message to the dashboard; `body` is JSON."""
        columns = {"at": self._database.now(), "kind": kind, "round": round, "body": dict(body)}
        self._database.write(lambda connection: connection.execute(insert(JournalRow).values(columns)))

    def read(self, *, after: int = 0, kind: EntryKind | None = None, limit: int | None = None) -> list[JournalEntry]:
        """The entries with ids above `after`, oldest first; only those of one kind if `kind` is given, and at most `limit`."""
        query = select(JournalRow.id, JournalRow.at, JournalRow.kind, JournalRow.round, JournalRow.body).where(JournalRow.id > after)
        if kind is not None:
            query = query.where(JournalRow.kind == kind)
        with self._database.reading() as connection:
            return [JournalEntry(**row) for row in connection.execute(query.order_by(JournalRow.id).limit(limit)).mappings()]

    def last(self, kind: EntryKind) -> JournalEntry | None:
        """The newest entry of a kind; None if there is none."""
        query = select(JournalRow.id, JournalRow.at, JournalRow.kind, JournalRow.round, JournalRow.body).where(JournalRow.kind == kind)
        with self._database.reading() as connection:
            row = connection.execute(query.order_by(JournalRow.id.desc()).limit(1)).mappings().one_or_none()
        return None if row is None else JournalEntry(**row)

    def control(self, action: Action, annotator: int, round: int | None = None) -> None:
        """Send an action to the trainer; `round` is the round that train_now closes."""
        columns = {"at": self._database.now(), "annotator_id": annotator, "action": action, "round": round}
        self._database.write(lambda connection: connection.execute(insert(ControlRow).values(columns)))

    def current_control(self) -> ControlState:
        """The state that results from all actions so far: that of the newest pause, resume or stop, and the newest train_now."""
        state = select(ControlRow.action).where(ControlRow.action != "train_now").order_by(ControlRow.id.desc()).limit(1)
        now = select(ControlRow.round).where(ControlRow.action == "train_now").order_by(ControlRow.id.desc()).limit(1)
        with self._database.reading() as connection:
            action = connection.execute(state).scalar_one_or_none()
            round = connection.execute(now).scalar_one_or_none()
        return ControlState(paused=action == "pause", stop=action == "stop", train_now_round=round)


class Audit:
    """The audit log of administrators' actions: append-only, each entry contains the hash of the previous one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, actor: str, action: str, detail: Mapping[str, Any]) -> None:
        """Record an action of an administrator; `detail` is JSON."""
        self._database.write(lambda connection: append_entry(connection, self._database.now(), actor, action, detail))

    def newest(self, limit: int) -> list[AuditEntry]:
        """The last entries, newest first."""
        with self._database.reading() as connection:
            return [AuditEntry(**row) for row in connection.execute(_entries().order_by(AuditRow.id.desc()).limit(limit)).mappings()]

    def verify(self) -> bool:
        """Whether every entry is unchanged and follows the previous one. Missing entries at the end cannot be detected."""
        query = _entries().order_by(AuditRow.id).execution_options(yield_per=500)
        with self._database.reading() as connection, connection.execute(query) as result:
            return _is_chain(result.mappings())


def append_entry(connection: Connection, at: int, actor: str, action: str, detail: Mapping[str, Any]) -> None:
    """Add an entry to the audit log, in the transaction of the action that it records."""
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
