"""Messages to a real receiver: signed, tried again, and never more than a webhook bears."""

import json
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_network
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, update
from sqlalchemy.orm import Session
from standardwebhooks.webhooks import WebhookVerificationError

from api.outbound import Outbound
from api.sender import Sender
from jobs.deliveries import DeliveryQueue, DeliveryState, state_of
from jobs.records import Delivery, Webhook
from jobs.request import JobRequest
from jobs.store import JobStore
from jobs.webhooks import WebhookChange, WebhookRequest, WebhookStore
from tests.fake_worker import FakeWorker
from tests.receiver import Receiver

LOOPBACK = (ip_network("127.0.0.0/8"),)
NO_DELAY = timedelta()
KEEP = timedelta(days=30)

Sending = Callable[..., Sender]


@pytest.fixture
def webhooks(engine: Engine) -> WebhookStore:
    return WebhookStore(engine)


@pytest.fixture
def sender(engine: Engine) -> Sending:
    """A sender by some delays, which sends when it is told to."""

    def make(
        *delays: timedelta, give_up_after: timedelta = KEEP, timeout_seconds: float = 20
    ) -> Sender:
        queue = DeliveryQueue(engine, delays=delays, give_up_after=give_up_after)
        return Sender(queue, Outbound(LOOPBACK, timeout_seconds), KEEP)

    return make


@pytest.fixture
def submitted(engine: Engine, body: dict[str, Any]) -> Callable[[], UUID]:
    """Submits a job; a webhook that hears of it gets a message."""
    request = JobRequest.model_validate({**body, "name": "smol", "owner": "search"})
    return lambda: JobStore(engine).submit(request).id


def hearing(webhooks: WebhookStore, url: str, **more: Any) -> Webhook:
    request = {"url": url, "events": ["job.submitted"], "owner": "search", **more}
    return webhooks.create(WebhookRequest.model_validate(request))


def only(webhooks: WebhookStore, webhook: Webhook) -> Delivery:
    (delivery,) = webhooks.deliveries(webhook.id, limit=10).items
    return delivery


def test_a_message_is_signed_thin_and_says_where_to_ask(
    webhooks: WebhookStore, sender: Sending, submitted: Callable[[], UUID]
) -> None:
    with Receiver(statuses=[200], body=b"thanks\0") as receiver:
        webhook = hearing(webhooks, receiver.url)
        job_id = submitted()
        assert sender().send_next()
        assert not sender().send_next()
        (message,) = receiver.messages
        delivery = only(webhooks, webhook)
        assert message.path == "/hook?key=1"
        assert message.headers["webhook-id"] == str(delivery.id)
        assert message.headers["Content-Type"] == "application/json"
        assert message.verified(webhook.secret) == {
            "type": "job.submitted",
            "timestamp": delivery.created_at.isoformat(),
            "data": {
                "job_id": str(job_id),
                "state": "queued",
                "name": "smol",
                "owner": "search",
                "links": {
                    "self": f"/v1/jobs/{job_id}",
                    "events": f"/v1/jobs/{job_id}/events",
                    "artifacts": f"/v1/jobs/{job_id}/artifacts",
                },
            },
        }
        assert len(message.content) < 20_000
        assert state_of(delivery) is DeliveryState.DELIVERED
        assert (delivery.attempts, delivery.last_status, delivery.last_error) == (1, 200, None)
        assert delivery.last_response == "thanks\N{REPLACEMENT CHARACTER}"


def test_another_secret_or_another_message_is_not_verified(
    webhooks: WebhookStore, sender: Sending, submitted: Callable[[], UUID]
) -> None:
    with Receiver() as receiver:
        webhook = hearing(webhooks, receiver.url)
        submitted()
        sender().send_next()
    (message,) = receiver.messages
    with pytest.raises(WebhookVerificationError):
        message.verified(webhooks.rotate_secret(webhook.id).secret)
    message.content = message.content.replace(b"queued", b"failed")
    with pytest.raises(WebhookVerificationError):
        message.verified(webhook.secret)


def test_after_a_rotation_both_secrets_sign_until_the_grace_is_over(
    engine: Engine, webhooks: WebhookStore, sender: Sending, submitted: Callable[[], UUID]
) -> None:
    with Receiver() as receiver:
        webhook = hearing(webhooks, receiver.url)
        rotated = webhooks.rotate_secret(webhook.id)
        assert rotated.secret != webhook.secret
        submitted()
        sender().send_next()
        for secret in (webhook.secret, rotated.secret):
            assert receiver.messages[0].verified(secret)["type"] == "job.submitted"
        with Session(engine) as session, session.begin():
            over = datetime.now(UTC) - timedelta(days=1)
            session.execute(update(Webhook).values(previous_secret_until=over))
        submitted()
        sender().send_next()
        receiver.messages[1].verified(rotated.secret)
        with pytest.raises(WebhookVerificationError):
            receiver.messages[1].verified(webhook.secret)


def test_a_failure_is_tried_again_with_the_same_id_and_content(
    webhooks: WebhookStore, sender: Sending, submitted: Callable[[], UUID]
) -> None:
    with Receiver(statuses=[500, 404, 204]) as receiver:
        webhook = hearing(webhooks, receiver.url)
        submitted()
        patient = sender(NO_DELAY, NO_DELAY)
        assert patient.send_next()
        failed = only(webhooks, webhook)
        assert (state_of(failed), failed.last_error) == (DeliveryState.PENDING, "answered 500")
        assert webhooks.show(webhook.id).failing_since is not None
        assert [patient.send_next() for _ in range(3)] == [True, True, False]
    first, *others = receiver.messages
    assert len(others) == 2
    for message in others:
        assert message.headers["webhook-id"] == first.headers["webhook-id"]
        assert message.content == first.content
    delivery = only(webhooks, webhook)
    assert (state_of(delivery), delivery.attempts) == (DeliveryState.DELIVERED, 3)
    assert (delivery.last_error, delivery.last_status) == (None, 204)
    assert webhooks.show(webhook.id).failing_since is None


def test_a_delivery_is_given_up_when_its_tries_are_used_up(
    webhooks: WebhookStore, sender: Sending, submitted: Callable[[], UUID]
) -> None:
    with Receiver(statuses=[500]) as receiver:
        webhook = hearing(webhooks, receiver.url)
        submitted()
        patient = sender(NO_DELAY)
        assert [patient.send_next() for _ in range(3)] == [True, True, False]
        delivery = only(webhooks, webhook)
        assert (state_of(delivery), delivery.attempts) == (DeliveryState.FAILED, 2)
        assert webhooks.show(webhook.id).enabled
        # One more, by hand.
        receiver.statuses = [204]
        assert state_of(webhooks.replay(webhook.id, delivery.id)) is DeliveryState.PENDING
        assert [patient.send_next() for _ in range(2)] == [True, False]
    assert state_of(only(webhooks, webhook)) is DeliveryState.DELIVERED
    assert len({message.headers["webhook-id"] for message in receiver.messages}) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_a_failure_that_is_not_followed(
    webhooks: WebhookStore, sender: Sending, submitted: Callable[[], UUID], status: int
) -> None:
    with Receiver() as other, Receiver(statuses=[status]) as receiver:
        receiver.headers = {"Location": other.url}
        webhook = hearing(webhooks, receiver.url)
        submitted()
        sender().send_next()
    delivery = only(webhooks, webhook)
    assert other.messages == []
    assert delivery.last_status == status
    assert other.url in (delivery.last_error or "")
    assert "change the URL" in (delivery.last_error or "")


def test_a_receiver_that_is_gone_is_left_alone_until_it_is_enabled(
    webhooks: WebhookStore, sender: Sending, submitted: Callable[[], UUID]
) -> None:
    with Receiver(statuses=[410, 204]) as receiver:
        webhook = hearing(webhooks, receiver.url)
        submitted()
        patient = sender(NO_DELAY)
        patient.send_next()
        gone = webhooks.show(webhook.id)
        assert not gone.enabled
        assert "410" in (gone.disabled_reason or "")
        assert state_of(only(webhooks, webhook)) is DeliveryState.FAILED
        submitted()
        assert not patient.send_next()
        back = webhooks.change(webhook.id, WebhookChange(enabled=True))
        assert (back.disabled_reason, back.failing_since) == (None, None)
        submitted()
        assert [patient.send_next() for _ in range(2)] == [True, False]
    assert len(receiver.messages) == 2


def test_a_receiver_that_was_down_hears_when_it_is_up(
    webhooks: WebhookStore, sender: Sending, submitted: Callable[[], UUID]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    webhook = hearing(webhooks, f"http://127.0.0.1:{port}/hook")
    submitted()
    patient = sender(NO_DELAY)
    patient.send_next()
    down = only(webhooks, webhook)
    assert down.last_status is None
    assert "refused" in (down.last_error or "")
    with Receiver(port=port) as receiver:
        patient.send_next()
    assert receiver.messages[0].verified(webhook.secret)


def test_a_slow_receiver_has_failed(
    webhooks: WebhookStore, sender: Sending, submitted: Callable[[], UUID]
) -> None:
    with Receiver(drip_seconds=1) as receiver:
        webhook = hearing(webhooks, receiver.url)
        submitted()
        sender(NO_DELAY, timeout_seconds=0.5).send_next()
        assert "within 0.5 s" in (only(webhooks, webhook).last_error or "")


@pytest.mark.parametrize(
    ("status", "wanted", "asked"),
    [
        (429, "3600", timedelta(hours=1)),
        (503, "a date", timedelta(hours=3)),
        (503, "99999999999", timedelta(hours=24)),
        (503, "soon", NO_DELAY),
        (500, "3600", NO_DELAY),
    ],
    ids=["seconds", "date", "too long", "no number", "not asked for"],
)
def test_a_receiver_that_asks_for_time_gets_it(
    webhooks: WebhookStore,
    sender: Sending,
    submitted: Callable[[], UUID],
    status: int,
    wanted: str,
    asked: timedelta,
) -> None:
    if wanted == "a date":
        wanted = format_datetime(datetime.now(UTC) + asked)
    with Receiver(statuses=[status], headers={"Retry-After": wanted}) as receiver:
        webhook = hearing(webhooks, receiver.url)
        submitted()
        sender(NO_DELAY).send_next()
    delivery = only(webhooks, webhook)
    assert delivery.next_try_at is not None
    assert delivery.tried_at is not None
    waits = delivery.next_try_at - delivery.tried_at
    # A tenth more at most; the test and the try have taken a while themselves.
    some = timedelta(minutes=2)
    assert asked - some <= waits <= asked * 1.1 + some


def test_a_webhook_that_nothing_reaches_for_days_is_disabled_and_says_so(
    engine: Engine, webhooks: WebhookStore, sender: Sending, submitted: Callable[[], UUID]
) -> None:
    with Receiver(statuses=[500, 500, 204, 500]) as receiver:
        webhook = hearing(webhooks, receiver.url)
        submitted()
        patient = sender(NO_DELAY, NO_DELAY, NO_DELAY, give_up_after=timedelta(days=5))

        def failing_for(days: float) -> None:
            with Session(engine) as session, session.begin():
                since = datetime.now(UTC) - timedelta(days=days)
                session.execute(update(Webhook).values(failing_since=since))

        patient.send_next()
        failing_for(days=4.9)
        patient.send_next()
        assert webhooks.show(webhook.id).enabled
        patient.send_next()
        assert webhooks.show(webhook.id).failing_since is None
        submitted()
        failing_for(days=5.1)
        patient.send_next()
        found = webhooks.show(webhook.id)
        assert not found.enabled
        assert "nothing has arrived since" in (found.disabled_reason or "")
        assert "answered 500" in (found.disabled_reason or "")


def test_a_url_that_has_become_a_way_inside_is_not_gone(
    engine: Engine, webhooks: WebhookStore, submitted: Callable[[], UUID]
) -> None:
    with Receiver() as receiver:
        webhook = hearing(webhooks, receiver.url)
        submitted()
        queue = DeliveryQueue(engine, delays=[NO_DELAY])
        Sender(queue, Outbound((), 20), KEEP).send_next()
    assert receiver.messages == []
    assert "not on the internet" in (only(webhooks, webhook).last_error or "")


def test_a_ping_is_tried_once_whatever_the_events(webhooks: WebhookStore, sender: Sending) -> None:
    with Receiver(statuses=[204, 500]) as receiver:
        webhook = hearing(webhooks, receiver.url)
        webhooks.ping(webhook.id)
        patient = sender(NO_DELAY)
        assert [patient.send_next() for _ in range(2)] == [True, False]
        told = receiver.messages[0].verified(webhook.secret)
        assert (told["type"], told["data"]) == (
            "webhook.test",
            {"webhook_id": str(webhook.id)},
        )
        failing = webhooks.ping(webhook.id)
        assert [patient.send_next() for _ in range(2)] == [True, False]
        assert state_of(webhooks.delivery(webhook.id, failing.id)) is DeliveryState.FAILED


def test_what_a_dead_sender_had_taken_is_sent_by_another(
    engine: Engine, webhooks: WebhookStore, sender: Sending, submitted: Callable[[], UUID]
) -> None:
    with Receiver() as receiver:
        webhook = hearing(webhooks, receiver.url)
        submitted()
        dead = DeliveryQueue(engine).take(60)
        assert dead is not None
        assert not sender().send_next()
        with Session(engine) as session, session.begin():
            over = datetime.now(UTC) - timedelta(seconds=1)
            session.execute(update(Delivery).values(taken_until=over))
        assert sender().send_next()
    assert len(receiver.messages) == 1
    delivery = only(webhooks, webhook)
    assert (state_of(delivery), delivery.attempts) == (DeliveryState.DELIVERED, 2)


def test_senders_at_once_send_each_message_once(
    webhooks: WebhookStore, sender: Sending, submitted: Callable[[], UUID]
) -> None:
    with Receiver() as one, Receiver() as other:
        for receiver in (one, other):
            hearing(webhooks, receiver.url)
        jobs = {str(submitted()) for _ in range(12)}
        with sender(), sender():
            for receiver in (one, other):
                receiver.wait_for(len(jobs))
        for receiver in (one, other):
            told = [message.headers["webhook-id"] for message in receiver.messages]
            assert len(told) == len(set(told)) == len(jobs)


def test_a_job_lives_as_ever_beside_a_webhook_that_hangs(
    webhooks: WebhookStore, sender: Sending, submitted: Callable[[], UUID], worker: FakeWorker
) -> None:
    with Receiver(drip_seconds=60) as hangs, Receiver() as receiver:
        events = ["job.running", "job.succeeded"]
        hearing(webhooks, hangs.url, events=events)
        hearing(webhooks, receiver.url, events=events)
        with sender(timeout_seconds=60):
            submitted()
            claim = worker.claim()
            hangs.wait_for(1)
            worker.succeed(claim, {"model.safetensors": b"weights"})
            receiver.wait_for(2)
    states = {json.loads(message.content)["type"] for message in receiver.messages}
    assert states == {"job.running", "job.succeeded"}
    assert len(hangs.messages) == 1
