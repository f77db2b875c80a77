"""What is sent to webhooks: rows that come with a job's event, and are tried until they arrive.

A delivery is inserted in the transaction of its event, so there are both or neither. Whoever sends
takes it for a while in one short transaction, sends without any, and writes the outcome in another;
a sender that dies in between has lost nothing, since the row is due again when that while is over.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Engine,
    any_,
    case,
    delete,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session, aliased

from jobs.records import Delivery, Webhook


class WebhookEvent(StrEnum):
    """What a webhook may hear of."""

    SUBMITTED = "job.submitted"
    RUNNING = "job.running"
    REQUEUED = "job.requeued"
    PAUSED = "job.paused"
    RESUMED = "job.resumed"
    SUCCEEDED = "job.succeeded"
    FAILED = "job.failed"
    CANCELLED = "job.cancelled"
    EXPIRING = "job.expiring"
    EXPIRED = "job.expired"


PING = "webhook.test"
"""The event of a message that a client asks for to see whether it arrives."""

_TOLD: Mapping[str, WebhookEvent] = {
    "submitted": WebhookEvent.SUBMITTED,
    "running": WebhookEvent.RUNNING,
    **dict.fromkeys(
        ("released", "crashed", "stalled", "host_out_of_memory", "disk_full", "lease_expired"),
        WebhookEvent.REQUEUED,
    ),
    "paused": WebhookEvent.PAUSED,
    "resumed": WebhookEvent.RESUMED,
    "succeeded": WebhookEvent.SUCCEEDED,
    "failed": WebhookEvent.FAILED,
    "cancelled": WebhookEvent.CANCELLED,
    "expiry_announced": WebhookEvent.EXPIRING,
    "expired": WebhookEvent.EXPIRED,
}
"""What becomes of a job's events; those that are not here stay at home."""

DELAYS: Sequence[timedelta] = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
"""What is waited after the first failure, the second, and so on: three days in all."""

_JITTER = 0.1
"""Share by which a delay may be longer, so that receivers that come back are not overrun."""

_LONGEST_DELAY = timedelta(hours=24)
"""A receiver that asks for more does not get it."""

GIVE_UP_AFTER = timedelta(days=5)
"""A webhook that nothing has reached for so long, though it was tried, is disabled."""


class DeliveryState(StrEnum):
    """What has become of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


def state_of(delivery: Delivery) -> DeliveryState:
    """Waiting for a try, arrived, or given up."""
    if delivery.next_try_at is not None:
        return DeliveryState.PENDING
    return DeliveryState.FAILED if delivery.delivered_at is None else DeliveryState.DELIVERED


SHARED: dict[str, Any] = {"key_share": True}
"""How a webhook's row is locked to be changed: jobs that queue messages for it do not wait."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A delivery that somebody is to send now.

    Attributes:
        attempt: from 1; with the id it names this try, and only it may write the outcome.
        at: now, by the database's clock.
        secrets: that sign, the current one first.
    """

    id: UUID
    attempt: int
    url: str
    event: str
    created_at: datetime
    data: Mapping[str, Any]
    at: datetime
    secrets: Sequence[str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a try has ended.

    Attributes:
        error: why it failed, in words; None: it arrived.
        status: of the answer, if one came.
        response: the beginning of its body.
        retry_after: what the receiver has asked to wait at least.
        gone: whether the receiver wants no more messages at all.
    """

    error: str | None
    status: int | None = None
    response: str | None = None
    retry_after: timedelta = timedelta()
    gone: bool = False


def announce(session: Session, job: Mapping[str, Any], event: str) -> None:
    """Queue an event of a job for every webhook that wants it.

    Args:
        job: what is told of it: its `job_id`, `state`, `name` and `owner`.
        event: as the job's own list of events has it.
    """
    told = _TOLD.get(event)
    if told is None:
        return
    wanted = (
        select(
            func.gen_random_uuid(),
            Webhook.id,
            literal(str(told)),
            literal(dict(job), JSONB),
            func.now(),
        )
        .where(
            Webhook.enabled,
            Webhook.owner == job["owner"],
            literal(str(told)) == any_(Webhook.events),
        )
        # A webhook that is deleted at this moment must not make the job's transaction fail.
        .with_for_update(read=True, key_share=True)
    )
    columns = ["id", "webhook_id", "event", "data", "next_try_at"]
    session.execute(insert(Delivery).from_select(columns, wanted, include_defaults=False))


class DeliveryQueue:
    """Deliveries as senders see them; any number of them may work at once."""

    def __init__(
        self,
        engine: Engine,
        *,
        delays: Sequence[timedelta] = DELAYS,
        give_up_after: timedelta = GIVE_UP_AFTER,
    ) -> None:
        self._engine = engine
        self._delays = delays
        self._give_up_after = give_up_after

    def take(self, seconds: float) -> Taken | None:
        """The delivery that has been due for the longest, if any; nobody else gets it for so long.

        Of each webhook hardly ever two at once, so that one that answers slowly holds up no other.
        """
        other = aliased(Delivery)
        busy = select(other.id).where(
            other.webhook_id == Delivery.webhook_id, other.taken_until > func.now()
        )
        due = (
            select(Delivery.id)
            .join(Webhook, Webhook.id == Delivery.webhook_id)
            .where(
                Webhook.enabled,
                Delivery.next_try_at <= func.now(),
                # Said of the row itself too: what another sender takes at this moment is looked at
                # again once it is locked, which what is said of other rows is not.
                or_(Delivery.taken_until.is_(None), Delivery.taken_until <= func.now()),
                ~busy.exists(),
            )
            .order_by(Delivery.next_try_at)
            .limit(1)
            .with_for_update(of=Delivery, skip_locked=True)
        )
        with Session(self._engine) as session, session.begin():
            delivery_id = session.scalar(due)
            if delivery_id is None:
                return None
            row = session.get_one(Delivery, delivery_id)
            webhook = session.get_one(Webhook, row.webhook_id)
            now = session.scalar(select(func.now()))
            assert now is not None
            row.attempts += 1
            row.tried_at = now
            row.taken_until = now + timedelta(seconds=seconds)
            return Taken(
                id=row.id,
                attempt=row.attempts,
                url=webhook.url,
                event=row.event,
                created_at=row.created_at,
                data=row.data,
                at=now,
                secrets=_signing(webhook, now),
            )

    def record(self, taken: Taken, outcome: Outcome) -> None:
        """Write how a try has ended; nothing if the delivery has been taken again since.

        A failure is tried again after the next delay, as long as there is one.
        """
        with Session(self._engine) as session, session.begin():
            # In this order, as in deleting a webhook, so that nobody waits for each other.
            webhook_id = session.scalar(select(Delivery.webhook_id).where(Delivery.id == taken.id))
            webhook = webhook_id and session.get(Webhook, webhook_id, with_for_update=SHARED)
            written = session.scalar(self._written(taken, outcome))
            if not webhook or written is None:
                return
            if outcome.error is None:
                webhook.failing_since = None
                return
            webhook.failing_since = webhook.failing_since or taken.at
            if outcome.gone:
                _disable(webhook, "the receiver answered 410: it wants no more messages")
            elif taken.at - webhook.failing_since >= self._give_up_after:
                since = f"{webhook.failing_since:%Y-%m-%d %H:%M} UTC"
                _disable(webhook, f"nothing has arrived since {since}; last: {outcome.error}")

    def forget(self, older_than: timedelta) -> int:
        """Remove deliveries of so long ago; how many."""
        old = delete(Delivery).where(Delivery.created_at < func.now() - older_than)
        with Session(self._engine) as session, session.begin():
            return len(session.scalars(old.returning(Delivery.id)).all())

    def _written(self, taken: Taken, outcome: Outcome) -> Any:
        # A replay that was asked for while the try was under way is due all the same.
        replayed = Delivery.next_try_at > taken.at
        return (
            update(Delivery)
            .where(
                Delivery.id == taken.id,
                Delivery.attempts == taken.attempt,
                Delivery.taken_until.is_not(None),
            )
            .values(
                taken_until=None,
                delivered_at=func.now() if outcome.error is None else None,
                next_try_at=case(
                    (replayed, Delivery.next_try_at), else_=self._next_try(taken, outcome)
                ),
                last_status=outcome.status,
                last_error=outcome.error,
                last_response=outcome.response,
            )
            .returning(Delivery.id)
            .execution_options(synchronize_session=False)
        )

    def _next_try(self, taken: Taken, outcome: Outcome) -> Any:
        left = self._delays[taken.attempt - 1 :]
        if outcome.error is None or outcome.gone or taken.event == PING or not left:
            return null()
        wait = max(left[0], min(outcome.retry_after, _LONGEST_DELAY))
        longer = random.uniform(1, 1 + _JITTER)  # noqa: S311 - nobody gains by guessing it
        return func.now() + literal(wait * longer)


def _signing(webhook: Webhook, now: datetime) -> Sequence[str]:
    until = webhook.previous_secret_until
    if webhook.previous_secret is None or until is None or until <= now:
        return (webhook.secret,)
    return (webhook.secret, webhook.previous_secret)


def _disable(webhook: Webhook, reason: str) -> None:
    webhook.enabled, webhook.disabled_reason = False, reason
