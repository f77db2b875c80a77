"""Keys in the store, and what a key looks like."""

import string
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from jobs.errors import (
    FirstKeyError,
    KeyEndedError,
    KeyNotFoundError,
    KeyTimeError,
    NotAuthenticatedError,
)
from jobs.keys import KeyRequest, KeyStore
from jobs.records import Key
from jobs.roles import LOCAL, Caller, Role
from jobs.tokens import Token

ADMIN = Caller("someone", "someone", "default", Role.ADMIN)


@pytest.fixture
def keys(engine: Engine) -> KeyStore:
    return KeyStore(engine)


@pytest.fixture
def change(engine: Engine) -> Callable[..., None]:
    def change(key_id: str, **values: Any) -> None:
        with Session(engine) as session, session.begin():
            session.execute(update(Key).where(Key.id == key_id).values(**values))

    return change


def make(keys: KeyStore, **more: Any) -> Token:
    said: dict[str, Any] = {"name": "ci", "role": Role.SUBMITTER, "owner": "search", **more}
    return keys.create(KeyRequest(**said))[1]


def refused(keys: KeyStore, token: Token) -> str:
    with pytest.raises(NotAuthenticatedError) as refusal:
        keys.authenticate(token.reveal())
    assert token.secret not in str(refusal.value)
    return str(refusal.value)


def test_a_token_is_read_as_it_was_written() -> None:
    token = Token.generate()
    prefix, key_id, secret, _ = token.reveal().split("_")
    assert (prefix, key_id, secret) == ("bonsai", token.id, token.secret)
    assert Token.parse(token.reveal()) == token
    assert token.secret not in repr(token)
    assert set(token.secret) <= set(string.ascii_letters + string.digits)
    # 43 of 62 characters are 256 bits.
    assert 62 ** len(token.secret) >= 2**256
    assert Token.generate(token.id) != token


def test_every_mistyped_letter_is_noticed() -> None:
    text = Token("0123456789ab", "k" * 43).reveal()
    for place, letter in enumerate(text):
        other = "x" if letter != "x" else "y"
        assert Token.parse(text[:place] + other + text[place + 1 :]) is None, place


@pytest.mark.parametrize(
    "text", ["", "bonsai", "bonsai___", "sk-123", "\0", "bonsai_é_é_é", "_" * 9]
)
def test_other_texts_are_no_tokens(text: str) -> None:
    assert Token.parse(text) is None


def test_a_key_says_who_comes(keys: KeyStore) -> None:
    token = make(keys)
    assert keys.authenticate(token.reveal()) == Caller(token.id, "ci", "search", Role.SUBMITTER)
    assert "not the secret" in refused(keys, Token.generate(token.id))
    assert "not known" in refused(keys, Token.generate())


def test_keys_are_needed_from_the_first_one_on(keys: KeyStore, engine: Engine) -> None:
    assert (keys.are_needed(), keys.any_live()) == (False, False)
    token = make(keys)
    assert (keys.are_needed(), keys.any_live()) == (True, True)
    keys.revoke(token.id)
    assert (keys.are_needed(), keys.any_live()) == (True, False)
    admin = KeyStore(engine, Token.generate().reveal())
    assert (admin.are_needed(), admin.any_live()) == (True, True)


def test_the_admin_of_the_settings_comes_in_whatever_the_table_says(engine: Engine) -> None:
    token = Token.generate()
    keys = KeyStore(engine, token.reveal())
    assert keys.authenticate(token.reveal()).role is Role.ADMIN
    assert "not the secret" in refused(keys, Token.generate(token.id))
    assert keys.list() == []
    with pytest.raises(NotAuthenticatedError, match="BONSAI_ADMIN_KEY"):
        KeyStore(engine, "hunter2")


def test_an_expired_key_opens_nothing(keys: KeyStore, change: Callable[..., None]) -> None:
    token = make(keys, expires_at=datetime.now(UTC) + timedelta(hours=1))
    assert keys.authenticate(token.reveal()).key_id == token.id
    change(token.id, expires_at=func.now() - timedelta(seconds=1))
    assert "expired" in refused(keys, token)
    # Who has not its secret does not learn what became of it.
    assert "not the secret" in refused(keys, Token.generate(token.id))
    assert not keys.show(token.id).live
    with pytest.raises(KeyEndedError, match="expired"):
        keys.rotate(token.id, timedelta(hours=1))
    with pytest.raises(KeyTimeError):
        make(keys, expires_at=datetime.now(UTC) - timedelta(hours=1))


def test_the_secret_before_a_rotation_ends_with_its_grace(
    keys: KeyStore, change: Callable[..., None]
) -> None:
    first = make(keys)
    account, second = keys.rotate(first.id, timedelta(hours=1))
    assert second.id == first.id
    assert account.key.previous_expires_at is not None
    for token in (first, second):
        assert keys.authenticate(token.reveal()).key_id == first.id
    change(first.id, previous_expires_at=func.now() - timedelta(seconds=1))
    assert "grace is over" in refused(keys, first)
    _, third = keys.rotate(first.id, timedelta(hours=1))
    assert "not the secret" in refused(keys, first)
    for token in (second, third):
        assert keys.authenticate(token.reveal()).key_id == first.id
    keys.revoke(first.id)
    for token in (second, third):
        refused(keys, token)


def test_the_last_use_is_written_once_a_minute(
    keys: KeyStore, engine: Engine, change: Callable[..., None]
) -> None:
    token = make(keys)

    def used() -> datetime | None:
        return keys.show(token.id).key.last_used_at

    assert used() is None
    keys.authenticate(token.reveal())
    first = used()
    assert first is not None
    keys.authenticate(token.reveal())
    assert used() == first
    change(token.id, last_used_at=func.now() - timedelta(seconds=61))
    before = used()
    refused(keys, Token.generate(token.id))
    assert used() == before
    keys.authenticate(token.reveal())
    assert used() != before


def test_the_first_key_of_this_machine_must_be_an_admins(keys: KeyStore) -> None:
    local = keys.on_behalf_of(LOCAL)
    with pytest.raises(FirstKeyError):
        make(local)
    assert keys.list() == []
    make(local, role=Role.ADMIN)
    make(keys.on_behalf_of(ADMIN))
    assert [account.key.created_by for account in keys.list()] == ["someone", None]


def test_an_unknown_key_is_told(keys: KeyStore) -> None:
    for ask in (keys.show, keys.revoke, lambda key_id: keys.rotate(key_id, timedelta())):
        with pytest.raises(KeyNotFoundError):
            ask("nothing")


def test_no_secret_is_in_the_table(keys: KeyStore, engine: Engine) -> None:
    token = make(keys)
    keys.rotate(token.id, timedelta(hours=1))
    with Session(engine) as session:
        row = session.scalars(select(Key)).one()
        stored = {str(getattr(row, column.name)) for column in Key.__table__.columns}
    assert token.secret not in stored
    assert token.sha256 in stored
