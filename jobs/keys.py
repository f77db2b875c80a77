"""API keys: who may come in, and as whom.

Of a secret only its SHA-256 is kept. A key has two secrets at most: its own, and for a while the
one before its last rotation. Times are compared by the database's clock.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, Engine, and_, func, or_, select, update
from sqlalchemy.orm import Session

from jobs.audit import record
from jobs.errors import (
    FirstKeyError,
    KeyEndedError,
    KeyNotFoundError,
    KeyTimeError,
    NotAuthenticatedError,
)
from jobs.moments import Moment
from jobs.records import Key
from jobs.request import Owner
from jobs.roles import Caller, OnBehalf, Role
from jobs.tokens import Token

USE_NOTED_AFTER = timedelta(minutes=1)
"""The last use of a key is written at most so often."""

ADMIN_KEY_NAME = "BONSAI_ADMIN_KEY"


class KeyRequest(BaseModel):
    """A key to make: the body of POST /v1/keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: Annotated[str, Field(min_length=1, max_length=200, examples=["nightly"])]
    """A name for people; need not be unique."""

    role: Annotated[Role, Field(examples=[Role.SUBMITTER])]
    """What it allows; each role includes those before it. `viewer`: reading its owner's jobs.
    `submitter`: submitting them, and pause, resume, cancel, retry, pin. `operator`: jobs of all
    owners, workers and what is kept. `admin`: keys and the audit."""

    owner: Owner = "default"
    """The team it belongs to. To viewers and submitters, jobs of others do not exist."""

    expires_at: Moment | None = None
    """When it ends by itself; null: never."""


@dataclass(frozen=True, slots=True)
class KeyAccount:
    """A key, and whether it opens anything now."""

    key: Key
    live: bool


class KeyStore(OnBehalf):
    """The keys' rows, and the admin's key from the settings. Each public method is one transaction.

    Raises:
        NotAuthenticatedError: `admin_key` is not a well-formed key.
    """

    def __init__(self, engine: Engine, admin_key: str | None = None) -> None:
        self._engine = engine
        self._admin = None if admin_key is None else _parsed(admin_key, "BONSAI_ADMIN_KEY")

    def are_needed(self) -> bool:
        """Whether a key was ever made, or is set: from then on, nobody comes in without one."""
        if self._admin is not None:
            return True
        with Session(self._engine) as session:
            return session.scalar(select(select(Key.id).exists())) or False

    def any_live(self) -> bool:
        """Whether there is a key that opens anything."""
        if self._admin is not None:
            return True
        with Session(self._engine) as session:
            return session.scalar(select(select(Key.id).where(_is_live()).exists())) or False

    def authenticate(self, text: str) -> Caller:
        """Who a key belongs to.

        Raises:
            NotAuthenticatedError: it is not a key, not one of ours, or not valid any more.
        """
        token = _parsed(text, "the key")
        if self._admin is not None and token.id == self._admin.id:
            _require_secret(token, self._admin.sha256)
            return Caller(token.id, ADMIN_KEY_NAME, "default", Role.ADMIN)
        old = func.coalesce(Key.last_used_at < func.now() - USE_NOTED_AFTER, True)
        grace = func.coalesce(Key.previous_expires_at > func.now(), False)
        query = select(Key, _is_live(), grace, old).where(Key.id == token.id)
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            found = session.execute(query).one_or_none()
            if found is None:
                raise NotAuthenticatedError("the key is not known here; is it for another service?")
            key, live, in_grace, unnoted = found
            _require_valid(token, key, live=live, in_grace=in_grace)
            if unnoted:
                session.execute(update(Key).where(Key.id == key.id).values(last_used_at=func.now()))
        return Caller(key.id, key.name, key.owner, Role(key.role))

    def create(self, request: KeyRequest) -> tuple[KeyAccount, Token]:
        """A new key, and what its owner gets: the only time that its secret is seen.

        Raises:
            FirstKeyError: it would lock everybody out who could make another one.
            KeyTimeError: it would be over already.
        """
        token = Token.generate()
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            self._require_an_admin(request.role)
            _require_future(session, request.expires_at)
            key = Key(
                id=token.id,
                sha256=token.sha256,
                created_by=self._caller.key_id if self._caller else None,
                **request.model_dump(),
            )
            session.add(key)
            session.flush()
            said = request.model_dump(mode="json")
            record(session, self._caller, "create_key", f"keys/{key.id}", **said)
            session.refresh(key)
        return KeyAccount(key, live=True), token

    def list(self) -> Sequence[KeyAccount]:
        """All keys, the newest first, those that have ended too."""
        query = select(Key, _is_live()).order_by(Key.created_at.desc(), Key.id)
        with Session(self._engine) as session:
            return [KeyAccount(key, live) for key, live in session.execute(query)]

    def show(self, key_id: str) -> KeyAccount:
        """One key; KeyNotFoundError if there is none of this id."""
        with Session(self._engine) as session:
            return _existing(session, key_id)

    def rotate(self, key_id: str, grace: timedelta) -> tuple[KeyAccount, Token]:
        """A new secret for a key; the one it had stays valid for the grace, and any older one ends.

        Raises:
            KeyNotFoundError: there is none of this id.
            KeyEndedError: it was revoked, or has expired.
        """
        token = Token.generate(key_id)
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            account = _existing(session, key_id, lock=True)
            key = account.key
            if not account.live:
                raise KeyEndedError(key_id, "revoked" if key.revoked_at else "expired")
            key.previous_sha256 = key.sha256 if grace else None
            key.previous_expires_at = session.scalar(select(func.now() + grace)) if grace else None
            key.sha256 = token.sha256
            seconds = grace.total_seconds()
            record(session, self._caller, "rotate_key", f"keys/{key_id}", grace_seconds=seconds)
            session.flush()
            session.refresh(key)
        return account, token

    def revoke(self, key_id: str) -> KeyAccount:
        """End a key at once, with all its secrets; a second call changes nothing.

        Raises:
            KeyNotFoundError: there is none of this id.
        """
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            key = _existing(session, key_id, lock=True).key
            if key.revoked_at is None:
                key.revoked_at = session.scalar(select(func.now()))
                key.previous_sha256 = key.previous_expires_at = None
                record(session, self._caller, "revoke_key", f"keys/{key_id}")
                session.flush()
                session.refresh(key)
        return KeyAccount(key, live=False)

    def _require_an_admin(self, role: Role) -> None:
        if self._caller is not None and self._caller.key_id is None and role is not Role.ADMIN:
            raise FirstKeyError(role)


def _parsed(text: str, what: str) -> Token:
    token = Token.parse(text)
    if token is None:
        # What it says is not repeated: it may be a key but for one letter.
        raise NotAuthenticatedError(
            f"{what} is not a whole key (bonsai_<id>_<secret>_<checksum>), or was mistyped: its "
            "checksum does not fit; copy it again"
        )
    return token


def _require_valid(token: Token, key: Key, *, live: bool, in_grace: bool) -> None:
    """Says more than that it is wrong only to who has the secret."""
    before = key.previous_sha256
    if before is not None and hmac.compare_digest(token.sha256, before):
        if not in_grace:
            raise NotAuthenticatedError(
                f"this secret of the key {key.id} was replaced, and its grace is over; use the new "
                "one"
            )
    else:
        _require_secret(token, key.sha256)
    if not live:
        how = "was revoked" if key.revoked_at else f"has expired ({key.expires_at:%Y-%m-%d} UTC)"
        raise NotAuthenticatedError(f"the key {key.id} {how}; ask an admin for another one")


def _require_secret(token: Token, sha256: str) -> None:
    if not hmac.compare_digest(token.sha256, sha256):
        raise NotAuthenticatedError(f"this is not the secret of the key {token.id}")


def _require_future(session: Session, at: datetime | None) -> None:
    if at is not None and session.scalar(select(func.now() >= at)):
        raise KeyTimeError(at)


def _is_live() -> ColumnElement[bool]:
    return and_(
        Key.revoked_at.is_(None), or_(Key.expires_at.is_(None), Key.expires_at > func.now())
    )


def _existing(session: Session, key_id: str, *, lock: bool = False) -> KeyAccount:
    query = select(Key, _is_live()).where(Key.id == key_id)
    found = session.execute(query.with_for_update() if lock else query).one_or_none()
    if found is None:
        raise KeyNotFoundError(key_id)
    return KeyAccount(*found)
