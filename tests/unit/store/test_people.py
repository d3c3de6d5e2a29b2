"""People in the store: who they are, how they are let in, and how they are kept out again."""

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from d3po.errors import StorageError, VoteError
from d3po.store import Annotator, Store
from d3po.store.people import DAY
from d3po.store.tables import TokenRow
from tests.unit.store.test_questions import let_time_pass


def enter(store: Store, handle: str = "ada") -> str:
    """Invite somebody and take up the invitation; the session's secret."""
    secret = store.people.exchange(store.people.invite(handle).token)
    assert secret is not None
    return secret


def test_an_annotator_is_made_once_and_found_again(store: Store) -> None:
    ada = store.people.annotator("ada", "human")
    assert store.people.annotator("ada", "human") == ada == Annotator(
        id=ada.id, handle="ada", kind="human", role="annotator", created_at=ada.created_at
    )  # fmt: skip
    rule = store.people.annotator("reward:size", "rule")
    assert store.people.annotators() == [ada, rule]


def test_a_handle_belongs_to_one_kind_of_annotator(store: Store) -> None:
    store.people.annotator("ada", "human")
    with pytest.raises(VoteError, match="'ada' is of kind human, not model"):
        store.people.annotator("ada", "model")


@pytest.mark.parametrize("handle", ["", "x" * 65, "two\nlines", "nul\0"])
def test_handles_are_short_and_printable(store: Store, handle: str) -> None:
    with pytest.raises(VoteError, match="1 to 64 printable characters"):
        store.people.annotator(handle, "human")


def test_the_owner_is_an_administrator_and_one_person(store: Store) -> None:
    assert store.people.owner() == store.people.owner()
    assert (store.people.owner().role, store.people.owner().kind) == ("admin", "human")


def test_an_invitation_lets_a_person_in(store: Store) -> None:
    who = store.people.session(enter(store))
    assert who == store.people.annotator("ada", "human")


def test_an_invitation_may_be_used_on_several_devices(store: Store) -> None:
    token = store.people.invite("ada").token
    secrets = {store.people.exchange(token) for _ in range(3)}
    assert len(secrets) == 3
    who = [store.people.session(secret or "") for secret in secrets]
    assert {one and one.handle for one in who} == {"ada"}
    assert store.people.invitations()[0].sessions == 3


def test_secrets_are_long_and_only_their_hashes_are_kept(store: Store, tmp_path: Path) -> None:
    invitation = store.people.invite("ada")
    secret = store.people.exchange(invitation.token) or ""
    assert len(secret) >= 43  # 256 bits, six to a character
    with store.database.reading() as connection:
        kept = " ".join(map(str, connection.execute(select(*TokenRow.__table__.columns)).all()))
    for word in (secret, invitation.token, invitation.token.rsplit(".", 1)[0]):
        assert word not in kept


def test_made_up_and_altered_tokens_admit_nobody(store: Store) -> None:
    token = store.people.invite("ada").token
    altered = [token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :] for place in (0, 20, 50, 60)]
    for wrong in ("", "x", token.rsplit(".", 1)[0], token + ".x", "ä", *altered):
        assert store.people.exchange(wrong) is None
    assert store.people.session("no such secret") is None
    assert store.people.session(token) is None


def test_a_token_of_another_key_admits_nobody(store: Store, url: str, tmp_path: Path) -> None:
    token = store.people.invite("ada").token
    other = Store(url, key_file=tmp_path / "other.key")
    assert other.people.exchange(token) is None
    other.close()


def test_a_session_is_not_an_invitation(store: Store) -> None:
    from itsdangerous import Signer  # as the store signs, with its own key

    secret = enter(store)
    signer: Signer = store.people._signer()
    assert store.people.exchange(signer.sign(secret).decode()) is None


def test_invitations_and_sessions_expire(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    token = store.people.invite("ada", lifetime=2 * DAY).token
    short, long = store.people.exchange(token, lifetime=DAY) or "", store.people.exchange(token, lifetime=30 * DAY) or ""
    let_time_pass(store, monkeypatch, 1.5 * DAY)
    assert store.people.session(short) is None
    assert store.people.session(long) is not None
    let_time_pass(store, monkeypatch, DAY)
    assert store.people.session(long) is None, "a session outlived its invitation"
    assert store.people.exchange(token) is None


def test_a_revoked_invitation_ends_its_sessions_and_no_others(store: Store) -> None:
    ada, bob = store.people.invite("ada"), enter(store, "bob")
    secret = store.people.exchange(ada.token) or ""
    assert store.people.revoke(ada.id, by="eve")
    assert store.people.session(secret) is None
    assert store.people.exchange(ada.token) is None
    assert store.people.session(bob) is not None
    assert store.people.revoke(ada.id, by="eve"), "revoking again is no mistake"
    assert not store.people.revoke(999, by="eve")
    assert [(entry.actor, entry.action, entry.detail) for entry in store.audit.newest(9)] == [("eve", "revoke", {"invitation": ada.id})] * 2
    assert store.audit.verify()


def test_what_is_no_invitation_cannot_be_revoked_as_one(store: Store) -> None:
    secret = enter(store)
    with store.database.reading() as connection:
        session = connection.execute(select(TokenRow.id).where(TokenRow.scope == "session")).scalar_one()
    assert not store.people.revoke(session, by="eve")
    assert store.people.session(secret) is not None
    assert store.audit.newest(9) == []


def test_the_owner_s_link_lets_one_browser_in_for_longer_than_the_link_is_good(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    token = store.people.invite_owner(lifetime=DAY).token
    secret = store.people.exchange(token) or ""
    assert store.people.session(secret) == store.people.owner()
    assert store.people.exchange(token) is None, "it was used"
    let_time_pass(store, monkeypatch, 2 * DAY)
    assert store.people.session(secret) == store.people.owner()
    let_time_pass(store, monkeypatch, 29 * DAY)
    assert store.people.session(secret) is None


def test_a_link_of_the_owner_s_that_nobody_used_ends_with_the_next_one_or_its_day(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    used = store.people.invite_owner()
    secret = store.people.exchange(used.token) or ""
    unused, newest = store.people.invite_owner(), store.people.invite_owner()
    assert store.people.exchange(unused.token) is None
    assert store.people.session(secret) is not None, "sessions outlast new links"
    assert [one.id for one in store.people.invitations()] == [newest.id, used.id]
    let_time_pass(store, monkeypatch, 1.01 * DAY)
    assert store.people.exchange(newest.token) is None


def test_links_and_sessions_of_the_owner_s_that_are_over_leave_nothing_behind(store: Store) -> None:
    for _ in range(3):
        store.people.leave(store.people.exchange(store.people.invite_owner().token) or "")
    newest = store.people.invite_owner()
    assert [one.id for one in store.people.invitations()] == [newest.id]


def test_withdrawing_the_owner_s_link_ends_its_session(store: Store) -> None:
    link = store.people.invite_owner()
    secret = store.people.exchange(link.token) or ""
    assert store.people.revoke(link.id, by="owner")
    assert store.people.session(secret) is None


def test_nobody_is_invited_under_the_owner_s_name(store: Store) -> None:
    with pytest.raises(VoteError, match="d3po invite RUN owner"):
        store.people.invite("owner", "admin")


def test_an_owner_whose_name_came_with_foreign_votes_is_an_administrator(store: Store) -> None:
    stranger = store.people.annotator("owner", "human")
    assert store.people.owner() == replace(stranger, role="admin") == store.people.annotators()[0]


def test_leaving_ends_one_session(store: Store) -> None:
    token = store.people.invite("ada").token
    first, second = store.people.exchange(token) or "", store.people.exchange(token) or ""
    store.people.leave(first)
    assert store.people.session(first) is None
    assert store.people.session(second) is not None


def test_invitations_are_listed_newest_first_without_their_tokens(store: Store) -> None:
    first, second = store.people.invite("ada"), store.people.invite("eve", "admin")
    store.people.exchange(first.token)
    store.people.revoke(second.id, by="ada")
    newer, older = store.people.invitations()
    assert (newer.id, newer.handle, newer.role, newer.sessions) == (second.id, "eve", "admin", 0)
    assert newer.revoked_at is not None
    assert (older.handle, older.role, older.sessions, older.revoked_at) == ("ada", "annotator", 1, None)
    assert older.expires_at == first.expires_at


def test_an_invitation_does_not_change_what_somebody_may_do(store: Store) -> None:
    store.people.invite("ada")
    with pytest.raises(VoteError, match="known as annotator, not as admin"):
        store.people.invite("ada", "admin")
    store.people.annotator("judge", "model")
    with pytest.raises(VoteError, match="of kind model"):
        store.people.invite("judge")


def test_the_key_is_for_its_owners_eyes_and_made_once(store: Store, tmp_path: Path) -> None:
    store.people.invite("ada")
    key = tmp_path / "d3po.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_text()
    store.people.invite("bob")
    assert key.read_text() == before
    assert [path.name for path in tmp_path.glob("*key*")] == ["d3po.key"]


def test_without_a_key_nobody_is_invited(url: str, tmp_path: Path) -> None:
    store = Store(url)
    with pytest.raises(StorageError, match="no key file"):
        store.people.invite("ada")
    store.close()
    store = Store(url, key_file=tmp_path / "nowhere" / "d3po.key")
    with pytest.raises(StorageError, match="cannot be read or made"):
        store.people.invite("ada")
    store.close()


def test_a_key_of_one_s_own_may_be_longer(store: Store, tmp_path: Path) -> None:
    key(tmp_path).write_text("ab01" * 16 + "\n")
    assert store.people.exchange(store.people.invite("ada").token) is not None


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * 42, b"\0" * 43, b"x" * 21 + b" " + b"x" * 21, b"\xff" * 43, b"x" * 2000], ids=repr)
def test_what_is_no_whole_key_signs_nothing(store: Store, tmp_path: Path, content: bytes) -> None:
    token = store.people.invite("ada").token
    key(tmp_path).write_bytes(content)
    with pytest.raises(StorageError, match=r"d3po\.key holds no key .*remove it: a new one is made"):
        store.people.invite("bob")
    with pytest.raises(StorageError, match="holds no key"):
        store.people.exchange(token)
    assert key(tmp_path).read_bytes() == content


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o601])
def test_a_key_that_others_may_use_is_refused(store: Store, tmp_path: Path, mode: int) -> None:
    store.people.invite("ada")
    key(tmp_path).chmod(mode)
    with pytest.raises(StorageError, match=rf"\(mode {mode:o}\): `chmod 600 "):
        store.people.invite("bob")
    key(tmp_path).chmod(0o400)
    store.people.invite("bob")


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_where_the_file_system_keeps_no_permissions_the_key_is_taken(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.people.invite("ada")
    key(tmp_path).chmod(0o755)
    monkeypatch.setattr(os, "fstat", lambda _: key(tmp_path).stat())
    store.people.invite("bob")


def test_a_key_that_is_a_link_or_no_file_is_refused(store: Store, tmp_path: Path) -> None:
    store.people.invite("ada")
    path = key(tmp_path).rename(tmp_path / "elsewhere").with_name("d3po.key")
    for target in ("elsewhere", "nowhere"):
        path.symlink_to(tmp_path / target)
        with pytest.raises(StorageError, match=r"d3po\.key is a link"):
            store.people.invite("bob")
        path.unlink()
    path.mkdir()
    with pytest.raises(StorageError, match=r"d3po\.key is no file"):
        store.people.invite("bob")


def test_a_key_is_made_where_there_are_no_hard_links(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert store.people.exchange(store.people.invite("ada").token) is not None
    assert [path.name for path in tmp_path.glob("*key*")] == ["d3po.key"]


def key(folder: Path) -> Path:
    path = folder / "d3po.key"
    if not path.exists():
        path.touch(mode=0o600)
    return path
