"""People in the store: annotators, the invitations they are sent, and the sessions of their browsers.

Secrets are 256 random bits, shown once; only their hashes are kept. Invitations are signed besides, with a key that lies in a file beside the
database, so that a copy of the database alone admits nobody, and made-up tokens are turned away without asking it.
"""

import hashlib
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from itsdangerous import BadSignature, Signer
from sqlalchemy import ColumnElement, Connection, Select, func, insert, or_, select, update
from sqlalchemy.orm import aliased

from d3po.errors import StorageError, VoteError
from d3po.preferences.records import AnnotatorKind, Role
from d3po.preferences.store.database import Database, insert_new
from d3po.preferences.tables import AnnotatorRow, TokenRow

OWNER = "owner"
"""Handle of whoever sits at the machine."""

LONGEST_HANDLE = 64

DAY = 86_400.0
"""Seconds."""


@dataclass(frozen=True, kw_only=True)
class Annotator:
    """Somebody, or something, that judges."""

    id: int
    handle: str
    kind: AnnotatorKind
    role: Role
    created_at: int


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """An invitation as its list shows it; its token cannot be shown again."""

    id: int
    handle: str
    role: Role
    created_at: int
    expires_at: int
    revoked_at: int | None
    sessions: int
    """Sessions that came from it and have not ended."""


@dataclass(frozen=True, kw_only=True)
class NewInvitation:
    """An invitation that was just made."""

    id: int
    token: str
    """To be sent to the person; it cannot be shown again."""
    expires_at: int


class People:
    """Knows annotators and lets them in; each method is one transaction.

    Args:
        database: where they are kept.
        key_file: the key that signs invitations, made when first needed; without one, nobody can be invited.
    """

    def __init__(self, database: Database, key_file: Path | None) -> None:
        self._database, self._key_file = database, key_file

    def annotator(self, handle: str, kind: AnnotatorKind, role: Role = "annotator") -> Annotator:
        """The annotator of that handle, made if there is none; the role of one that is there stays as it is.

        Raises:
            VoteError: the handle is of another kind of annotator, or is empty, too long or not printable.
        """
        if not (handle.isprintable() and 0 < len(handle) <= LONGEST_HANDLE):
            raise VoteError(f"a handle has 1 to {LONGEST_HANDLE} printable characters, not {handle[:80]!r}")
        found = self._database.write(lambda connection: _annotator(connection, handle, kind, role, self._database.now()))
        if found.kind != kind:
            raise VoteError(f"annotator {handle!r} is of kind {found.kind}, not {kind}; choose another handle")
        return found

    def owner(self) -> Annotator:
        """The administrator at the machine itself."""
        return self.annotator(OWNER, "human", "admin")

    def annotators(self) -> list[Annotator]:
        """All of them, in order of their ids."""
        with self._database.reading() as connection:
            return [Annotator(**row) for row in connection.execute(_annotators().order_by(AnnotatorRow.id)).mappings()]

    def invite(self, handle: str, role: Role = "annotator", *, lifetime: float = 30 * DAY) -> NewInvitation:
        """Let a person in for `lifetime` seconds, on as many devices as they like.

        Raises:
            VoteError: the handle is not a person's, or is that of a person in another role.
            StorageError: there is no key file, or it cannot be written.
        """
        signer, secret = self._signer(), secrets.token_urlsafe(32)
        annotator = self.annotator(handle, "human", role)
        if annotator.role != role:
            raise VoteError(f"{handle!r} is known as {annotator.role}, not as {role}; choose another handle")
        now = self._database.now()
        expires = round(now + 1000 * lifetime)
        made = insert(TokenRow).values(_token(annotator.id, "invitation", secret, now, expires)).returning(TokenRow.id)
        id = self._database.write(lambda connection: connection.execute(made).scalar_one())
        return NewInvitation(id=id, token=signer.sign(secret).decode(), expires_at=expires)

    def exchange(self, token: str, *, lifetime: float = 30 * DAY) -> str | None:
        """The secret of a new session, which ends with the invitation at the latest; None if the token is not, or no longer, valid."""
        try:
            secret = self._signer().unsign(token).decode()
        except BadSignature:
            return None

        def enter(connection: Connection) -> str | None:
            now = self._database.now()
            query = select(TokenRow.id, TokenRow.annotator_id, TokenRow.expires_at).where(
                TokenRow.secret_hash == _hash(secret),
                TokenRow.scope == "invitation",
                TokenRow.revoked_at.is_(None),
                TokenRow.expires_at > now,
            )
            invitation = connection.execute(query.with_for_update(key_share=True)).one_or_none()
            if invitation is None:
                return None
            session = secrets.token_urlsafe(32)
            ends = min(invitation.expires_at, round(now + 1000 * lifetime))
            columns = _token(invitation.annotator_id, "session", session, now, ends) | {"parent_id": invitation.id}
            connection.execute(insert(TokenRow).values(columns))
            return session

        return self._database.write(enter)

    def session(self, secret: str) -> Annotator | None:
        """Whose session it is; None if it has ended or never was."""
        valid = TokenRow.scope == "session", TokenRow.revoked_at.is_(None), TokenRow.expires_at > self._database.now()
        query = _annotators().join(TokenRow, TokenRow.annotator_id == AnnotatorRow.id).where(TokenRow.secret_hash == _hash(secret), *valid)
        with self._database.reading() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else Annotator(**row)

    def leave(self, secret: str) -> None:
        """End a session."""
        self._end(TokenRow.secret_hash == _hash(secret), TokenRow.scope == "session")

    def revoke(self, invitation: int) -> bool:
        """End an invitation and the sessions that came from it; False if there is no such invitation."""
        self._end(or_(TokenRow.id == invitation, TokenRow.parent_id == invitation))
        known = select(TokenRow.id).where(TokenRow.id == invitation, TokenRow.scope == "invitation")
        with self._database.reading() as connection:
            return connection.execute(known).scalar_one_or_none() is not None

    def invitations(self) -> list[Invitation]:
        """All invitations, newest first, expired and revoked ones included."""
        child = aliased(TokenRow)
        living = child.parent_id == TokenRow.id, child.revoked_at.is_(None), child.expires_at > self._database.now()
        query = (
            select(
                TokenRow.id,
                AnnotatorRow.handle,
                AnnotatorRow.role,
                TokenRow.created_at,
                TokenRow.expires_at,
                TokenRow.revoked_at,
                select(func.count(child.id)).where(*living).scalar_subquery().label("sessions"),
            )
            .join(AnnotatorRow, AnnotatorRow.id == TokenRow.annotator_id)
            .where(TokenRow.scope == "invitation")
            .order_by(TokenRow.id.desc())
        )
        with self._database.reading() as connection:
            return [Invitation(**row) for row in connection.execute(query).mappings()]

    def _end(self, *which: ColumnElement[bool]) -> None:
        ended = update(TokenRow).where(*which, TokenRow.revoked_at.is_(None)).values(revoked_at=self._database.now())
        with self._database.transaction() as connection:
            connection.execute(ended)

    def _signer(self) -> Signer:
        if self._key_file is None:
            raise StorageError("invitations are signed with a key, but no key file was named; open the store with one")
        return Signer(_key(self._key_file), salt="d3po invitation", key_derivation="hmac", digest_method=hashlib.sha256)


def _annotators() -> Select[*tuple[Any, ...]]:
    return select(AnnotatorRow.id, AnnotatorRow.handle, AnnotatorRow.kind, AnnotatorRow.role, AnnotatorRow.created_at)


def _annotator(connection: Connection, handle: str, kind: AnnotatorKind, role: Role, now: int) -> Annotator:
    query = _annotators().where(AnnotatorRow.handle == handle)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        insert_new(connection, AnnotatorRow, [{"handle": handle, "kind": kind, "role": role, "created_at": now}])
        row = connection.execute(query).mappings().one()
    return Annotator(**row)


def _token(annotator: int, scope: str, secret: str, now: int, expires: int) -> dict[str, object]:
    return {"annotator_id": annotator, "scope": scope, "secret_hash": _hash(secret), "created_at": now, "expires_at": expires}


def _hash(secret: str) -> str:
    """A fast hash will do: nobody guesses 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _key(path: Path) -> str:
    """The key in the file, which is made if it is not there; of two that make it at once, one does and both get the same."""
    try:
        if not path.exists():
            fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(32))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(fresh, path)
            fresh.unlink()
        return path.read_text()
    except OSError as error:
        raise StorageError(
            f"the key file {path} cannot be read or made: {error.strerror}; see that its folder is there and writable"
        ) from error
