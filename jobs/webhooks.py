"""Addresses that want to hear what happens to jobs, and the log of what was sent to each.

How deliveries come into being and are sent is in `jobs.deliveries`.
"""

import base64
import secrets
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from jobs.audit import record
from jobs.deliveries import PING, SHARED, WebhookEvent
from jobs.errors import DeliveryNotFoundError, WebhookDisabledError, WebhookNotFoundError
from jobs.pages import Page, newest_first
from jobs.records import Delivery, Webhook
from jobs.request import Owner, owner_of
from jobs.roles import OnBehalf

GRACE = timedelta(hours=24)
"""After a rotation, messages are signed with the old secret too for so long."""

SECRET_PREFIX = "whsec_"  # noqa: S105 - what each begins with
_SECRET_BYTES = 30
_SHOWN = 4

Name = Annotated[str, Field(min_length=1, max_length=200)]
Url = Annotated[str, Field(min_length=1, max_length=2000)]
Events = Annotated[
    list[WebhookEvent],
    Field(min_length=1, max_length=100),
    AfterValidator(lambda events: list(dict.fromkeys(events))),
]


class WebhookRequest(BaseModel):
    """The body of POST /v1/webhooks."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    url: Url
    """Where messages are posted: https, and an address on the internet, unless the operator allows
    more (`BONSAI_WEBHOOK_NETWORKS`). Redirects are not followed."""

    events: Events = [WebhookEvent.SUCCEEDED, WebhookEvent.FAILED, WebhookEvent.CANCELLED]
    """What is told; by default, that a job has ended."""

    owner: Owner = "default"
    """Whose jobs are told of."""

    name: Name | None = None
    """A name for people; need not be unique."""


class WebhookChange(BaseModel):
    """The body of PATCH /v1/webhooks/{id}; what is absent or null stays as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    url: Url | None = None
    """Another address, under the same rules."""

    events: Events | None = None
    """What is told from now on."""

    name: Name | None = None
    """Another name."""

    enabled: Annotated[bool | None, Field(strict=True)] = None
    """false: nothing is sent, and nothing that happens meanwhile will be; true: what waits goes on,
    and failures are counted anew."""


class WebhookStore(OnBehalf):
    """Webhooks as clients see them. Each public method is one transaction.

    Those that take an id raise WebhookNotFoundError where there is none.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, request: WebhookRequest) -> Webhook:
        """Insert a webhook, enabled, with a secret of its own."""
        owner = owner_of(request, self._caller)
        values = request.model_dump(mode="json") | {"owner": owner}
        row = Webhook(**values, secret=_new_secret())
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            session.add(row)
            session.flush()
            self._record(session, "create_webhook", row.id)
            session.refresh(row)
        return row

    def list(self, *, limit: int, cursor: str | None = None) -> Page[Webhook]:
        """Up to `limit` webhooks, newest first; InvalidCursorError for a foreign cursor."""
        query = select(Webhook)
        if self._only_owner is not None:
            query = query.where(Webhook.owner == self._only_owner)
        with Session(self._engine) as session:
            return newest_first(session, Webhook, query, limit, cursor)

    def show(self, webhook_id: UUID) -> Webhook:
        """One webhook."""
        with Session(self._engine) as session:
            return self._existing(session, webhook_id)

    def change(self, webhook_id: UUID, change: WebhookChange) -> Webhook:
        """Change what is given; another address, or enabling, forgets earlier failures."""
        values = change.model_dump(mode="json", exclude_none=True)
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            row = self._existing(session, webhook_id, lock=True)
            for name, value in values.items():
                setattr(row, name, value)
            if change.enabled or change.url is not None:
                row.failing_since = None
            if change.enabled:
                row.disabled_reason = None
            session.flush()
            self._record(session, "update_webhook", webhook_id)
            session.refresh(row)
        return row

    def delete(self, webhook_id: UUID) -> None:
        """Remove a webhook with its deliveries, also those that wait."""
        with Session(self._engine) as session, session.begin():
            session.delete(self._existing(session, webhook_id, lock=True))
            self._record(session, "delete_webhook", webhook_id)

    def rotate_secret(self, webhook_id: UUID) -> Webhook:
        """Give a webhook another secret; the one it had signs too until the grace is over."""
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            row = self._existing(session, webhook_id, lock=True)
            row.previous_secret, row.secret = row.secret, _new_secret()
            row.previous_secret_until = session.scalar(select(func.now() + GRACE))
            session.flush()
            self._record(session, "rotate_webhook_secret", webhook_id)
            session.refresh(row)
        return row

    def ping(self, webhook_id: UUID) -> Delivery:
        """Queue a message that says nothing, which is tried once.

        Raises:
            WebhookDisabledError: nothing is sent to it.
        """
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            _require_enabled(self._existing(session, webhook_id))
            row = Delivery(
                webhook_id=webhook_id,
                event=PING,
                data={"webhook_id": str(webhook_id)},
                next_try_at=func.now(),
            )
            session.add(row)
            session.flush()
            session.refresh(row)
        return row

    def deliveries(
        self, webhook_id: UUID, *, limit: int, cursor: str | None = None
    ) -> Page[Delivery]:
        """Up to `limit` deliveries of a webhook, newest first; InvalidCursorError for a foreign
        cursor."""
        query = select(Delivery).where(Delivery.webhook_id == webhook_id)
        with Session(self._engine) as session:
            self._existing(session, webhook_id)
            return newest_first(session, Delivery, query, limit, cursor)

    def delivery(self, webhook_id: UUID, delivery_id: UUID) -> Delivery:
        """One delivery of a webhook; DeliveryNotFoundError when there is none."""
        with Session(self._engine) as session:
            return self._delivery(session, webhook_id, delivery_id)

    def replay(self, webhook_id: UUID, delivery_id: UUID) -> Delivery:
        """Send a delivery now, whatever has become of it; it keeps its id and its count of tries.

        Raises:
            DeliveryNotFoundError: the webhook has no such delivery.
            WebhookDisabledError: nothing is sent to it.
        """
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            _require_enabled(self._existing(session, webhook_id))
            row = self._delivery(session, webhook_id, delivery_id, lock=True)
            row.delivered_at = None
            row.next_try_at = session.scalar(select(func.now()))
            session.flush()
            session.refresh(row)
        return row

    def _existing(self, session: Session, webhook_id: UUID, *, lock: bool = False) -> Webhook:
        row = session.get(Webhook, webhook_id, with_for_update=SHARED if lock else None)
        if row is None or not self._sees(row.owner):
            raise WebhookNotFoundError(webhook_id)
        return row

    def _delivery(
        self, session: Session, webhook_id: UUID, delivery_id: UUID, *, lock: bool = False
    ) -> Delivery:
        self._existing(session, webhook_id)
        row = session.get(Delivery, delivery_id, with_for_update=lock or None)
        if row is None or row.webhook_id != webhook_id:
            raise DeliveryNotFoundError(webhook_id, delivery_id)
        return row

    def _record(self, session: Session, action: str, webhook_id: UUID) -> None:
        record(session, self._caller, action, f"webhooks/{webhook_id}")


def masked(secret: str) -> str:
    """Enough of a secret to tell it from others."""
    return f"{SECRET_PREFIX}...{secret[-_SHOWN:]}"


def _new_secret() -> str:
    """Thirty random bytes: base64 without padding."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _require_enabled(webhook: Webhook) -> None:
    if not webhook.enabled:
        raise WebhookDisabledError(webhook.id, webhook.disabled_reason)
