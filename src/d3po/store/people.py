"""Annotators, their invitations, and the sessions of their browsers.

Secrets are 256 random bits and shown once; only their hashes are stored. Invitations are also signed, with a key in a file outside the database. So a copy
of the database alone admits nobody, and forged tokens are refused without a query.
"""

import hashlib
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from itsdangerous import BadSignature, Signer
from sqlalchemy import ColumnElement, Connection, Select, Update, delete, func, insert, or_, select, update
from sqlalchemy.orm import aliased

from d3po.errors import StorageError, VoteError
from d3po.preferences.records import AnnotatorKind, Role
from d3po.store.database import Database, insert_new
from d3po.store.journal import append_entry
from d3po.store.keys import signing_key
from d3po.store.tables import AnnotatorRow, TokenRow

OWNER = "owner"
"""Handle of the person who runs d3po. A link for the owner can only be made on that machine."""

LONGEST_HANDLE = 64
"""The most characters of a handle."""

DAY = 86_400.0
"""Seconds in a day."""


@dataclass(frozen=True, kw_only=True)
class Annotator:
    """A person, model or rule that answers questions."""

    id: int
    handle: str
    kind: AnnotatorKind
    role: Role
    created_at: int


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """An existing invitation, without its token, which cannot be shown again."""

    id: int
    handle: str
    role: Role
    created_at: int
    expires_at: int
    revoked_at: int | None
    sessions: int
    """Number of sessions that were opened with it and have not ended."""


@dataclass(frozen=True, kw_only=True)
class NewInvitation:
    """An invitation that was just made, with its token."""

    id: int
    token: str
    """The token to send to the person; it cannot be shown again."""
    expires_at: int


class People:
    """Annotators, invitations and sessions; each method is one transaction.

    Args:
        database: the run's database.
        key_file: file of the key that signs invitations, made when first needed; without one, nobody can be invited.
    """

    def __init__(self, database: Database, key_file: Path | None) -> None:
        self._database, self._key_file = database, key_file

    def annotator(self, handle: str, kind: AnnotatorKind, role: Role = "annotator") -> Annotator:
        """The annotator with this handle, added if there is none; an existing annotator keeps its role.

        Raises:
            VoteError: the handle belongs to another kind of annotator, or is empty, too long or not printable.
        """
        if not (handle.isprintable() and 0 < len(handle) <= LONGEST_HANDLE):
            raise VoteError(f"a handle has 1 to {LONGEST_HANDLE} printable characters, not {handle[:80]!r}")
        found = self._database.write(lambda connection: _annotator(connection, handle, kind, role, self._database.now()))
        if found.kind != kind:
            raise VoteError(f"annotator {handle!r} is of kind {found.kind}, not {kind}; choose another handle")
        return found

    def owner(self) -> Annotator:
        """The owner, who is an administrator; added if there is none."""
        found = self.annotator(OWNER, "human", "admin")
        if found.role != "admin":  # the handle was imported with votes before the owner was added
            promoted = update(AnnotatorRow).where(AnnotatorRow.id == found.id).values(role="admin")
            self._database.write(lambda connection: connection.execute(promoted))
        return replace(found, role="admin")

    def annotators(self) -> list[Annotator]:
        """All annotators, in order of their ids."""
        with self._database.reading() as connection:
            return [Annotator(**row) for row in connection.execute(_annotators().order_by(AnnotatorRow.id)).mappings()]

    def invite(self, handle: str, role: Role = "annotator", *, lifetime: float = 30 * DAY) -> NewInvitation:
        """Make an invitation that is valid for `lifetime` seconds, on any number of devices.

        Raises:
            VoteError: the handle is the owner's, is not a person's, or belongs to a person with another role.
            StorageError: there is no key file, or it cannot be used.
        """
        if handle == OWNER:
            raise VoteError(f"{OWNER!r} is the person who runs d3po; on that machine, `d3po invite RUN {OWNER}` prints a link")
        signer, secret = self._signer(), secrets.token_urlsafe(32)
        annotator = self.annotator(handle, "human", role)
        if annotator.role != role:
            raise VoteError(f"{handle!r} is known as {annotator.role}, not as {role}; choose another handle")
        now = self._database.now()
        expires = round(now + 1000 * lifetime)
        made = insert(TokenRow).values(_token(annotator.id, "invitation", secret, now, expires)).returning(TokenRow.id)
        id = self._database.write(lambda connection: connection.execute(made).scalar_one())
        return NewInvitation(id=id, token=signer.sign(secret).decode(), expires_at=expires)

    def invite_owner(self, *, lifetime: float = DAY) -> NewInvitation:
        """Make an invitation for the owner, valid for `lifetime` seconds and for one browser. The owner's earlier unused invitations are removed.

        Raises:
            VoteError: the owner's handle belongs to a model or a rule.
            StorageError: there is no key file, or it cannot be used.
        """
        signer, secret, owner = self._signer(), secrets.token_urlsafe(32), self.owner()
        now = self._database.now()
        expires = round(now + 1000 * lifetime)

        def make(connection: Connection) -> int:
            _forget_unused(connection, owner.id, now)
            made = insert(TokenRow).values(_token(owner.id, "invitation", secret, now, expires)).returning(TokenRow.id)
            return connection.execute(made).scalar_one()

        return NewInvitation(id=self._database.write(make), token=signer.sign(secret).decode(), expires_at=expires)

    def exchange(self, token: str, *, lifetime: float = 30 * DAY) -> str | None:
        """Open a session with an invitation's token, and return the session's secret; None if the token is not, or no longer, valid.

        A session ends with its invitation at the latest. The owner's invitation opens one session only, which may last longer than the invitation.

        Raises:
            StorageError: there is no key file, or it cannot be used.
        """
        try:
            secret = self._signer().unsign(token).decode()
        except BadSignature:
            return None

        def enter(connection: Connection) -> str | None:
            now = self._database.now()
            query = (
                select(TokenRow.id, TokenRow.annotator_id, TokenRow.expires_at, AnnotatorRow.handle)
                .join(AnnotatorRow, AnnotatorRow.id == TokenRow.annotator_id)
                .where(
                    TokenRow.secret_hash == _hash(secret),
                    TokenRow.scope == "invitation",
                    TokenRow.revoked_at.is_(None),
                    TokenRow.expires_at > now,
                )
            )
            invitation = connection.execute(query.with_for_update(key_share=True, of=TokenRow)).one_or_none()
            if invitation is None or (invitation.handle == OWNER and _is_used(connection, invitation.id)):
                return None
            session = secrets.token_urlsafe(32)
            ends = round(now + 1000 * lifetime)
            if invitation.handle != OWNER:
                ends = min(invitation.expires_at, ends)
            columns = _token(invitation.annotator_id, "session", session, now, ends) | {"parent_id": invitation.id}
            connection.execute(insert(TokenRow).values(columns))
            return session

        return self._database.write(enter)

    def session(self, secret: str) -> Annotator | None:
        """The annotator whose session has this secret; None if the session has ended or never existed."""
        valid = TokenRow.scope == "session", TokenRow.revoked_at.is_(None), TokenRow.expires_at > self._database.now()
        query = _annotators().join(TokenRow, TokenRow.annotator_id == AnnotatorRow.id).where(TokenRow.secret_hash == _hash(secret), *valid)
        with self._database.reading() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else Annotator(**row)

    def leave(self, secret: str) -> None:
        """End a session."""
        with self._database.transaction() as connection:
            connection.execute(_ended(self._database.now(), TokenRow.secret_hash == _hash(secret), TokenRow.scope == "session"))

    def revoke(self, invitation: int, *, by: str) -> bool:
        """End an invitation and the sessions that were opened with it, and record it in the audit log. Returns False if there is no such invitation.

        `by` is the handle of the administrator.
        """
        known = select(TokenRow.id).where(TokenRow.id == invitation, TokenRow.scope == "invitation")

        def end(connection: Connection) -> bool:
            if connection.execute(known).scalar_one_or_none() is None:
                return False
            now = self._database.now()
            connection.execute(_ended(now, or_(TokenRow.id == invitation, TokenRow.parent_id == invitation)))
            append_entry(connection, now, by, "revoke", {"invitation": invitation})
            return True

        return self._database.write(end)

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

    def _signer(self) -> Signer:
        if self._key_file is None:
            raise StorageError("invitations are signed with a key, but no key file was named; open the store with one")
        return Signer(signing_key(self._key_file), salt="d3po invitation", key_derivation="hmac", digest_method=hashlib.sha256)


def _annotators() -> Select[*tuple[Any, ...]]:
    return select(AnnotatorRow.id, AnnotatorRow.handle, AnnotatorRow.kind, AnnotatorRow.role, AnnotatorRow.created_at)


def _annotator(connection: Connection, handle: str, kind: AnnotatorKind, role: Role, now: int) -> Annotator:
    query = _annotators().where(AnnotatorRow.handle == handle)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        insert_new(connection, AnnotatorRow, [{"handle": handle, "kind": kind, "role": role, "created_at": now}])
        row = connection.execute(query).mappings().one()
    return Annotator(**row)


def _ended(now: int, *which: ColumnElement[bool]) -> Update:
    return update(TokenRow).where(*which, TokenRow.revoked_at.is_(None)).values(revoked_at=now)


def _is_used(connection: Connection, invitation: int) -> bool:
    return connection.execute(select(TokenRow.id).where(TokenRow.parent_id == invitation).limit(1)).scalar_one_or_none() is not None


def _forget_unused(connection: Connection, annotator: int, now: int) -> None:
    """Delete an annotator's ended sessions, and then invitations without a session, so that they do not accumulate each time a server starts."""
    over = or_(TokenRow.revoked_at.is_not(None), TokenRow.expires_at <= now)
    connection.execute(delete(TokenRow).where(TokenRow.annotator_id == annotator, TokenRow.scope == "session", over))
    child = aliased(TokenRow)
    used = select(child.id).where(child.parent_id == TokenRow.id).exists()
    connection.execute(delete(TokenRow).where(TokenRow.annotator_id == annotator, TokenRow.scope == "invitation", ~used))


def _token(annotator: int, scope: str, secret: str, now: int, expires: int) -> dict[str, object]:
    return {"annotator_id": annotator, "scope": scope, "secret_hash": _hash(secret), "created_at": now, "expires_at": expires}


def _hash(secret: str) -> str:
    """The hash of a secret. A fast hash suffices, since nobody can guess 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()
