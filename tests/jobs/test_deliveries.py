"""Messages to webhooks as rows: made with their event, taken once, never in a job's way."""

import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from jobs.deliveries import DELAYS, DeliveryQueue, Outcome, Taken, WebhookEvent
from jobs.moves import tell
from jobs.records import Delivery, Event, Job, Webhook
from jobs.request import JobRequest
from jobs.store import JobStore
from jobs.webhooks import WebhookRequest, WebhookStore

URL = "https://platform.example/hook"


@pytest.fixture
def webhooks(engine: Engine) -> WebhookStore:
    return WebhookStore(engine)


@pytest.fixture
def queue(engine: Engine) -> DeliveryQueue:
    return DeliveryQueue(engine)


@pytest.fixture
def submitted(store: JobStore, body: dict[str, Any]) -> Callable[[], UUID]:
    request = JobRequest.model_validate(body)
    return lambda: store.submit(request).id


def hearing(webhooks: WebhookStore) -> Webhook:
    return webhooks.create(WebhookRequest(url=URL, events=list(WebhookEvent)))


def taken_from(queue: DeliveryQueue) -> Taken:
    taken = queue.take(60)
    assert taken is not None
    return taken


def test_a_message_is_there_with_its_event_or_not_at_all(
    engine: Engine, webhooks: WebhookStore, submitted: Callable[[], UUID]
) -> None:
    hearing(webhooks)
    job_id = submitted()
    with Session(engine) as session:
        tell(session, job_id, "paused", {})
        session.flush()
        assert session.scalar(select(func.count()).select_from(Delivery)) == 2
        session.rollback()
        assert session.scalar(select(func.count()).select_from(Delivery)) == 1
        assert session.scalar(select(func.count()).select_from(Event)) == 1


def test_what_an_attempt_does_in_between_is_not_told(
    engine: Engine, webhooks: WebhookStore, submitted: Callable[[], UUID]
) -> None:
    hearing(webhooks)
    job_id = submitted()
    with Session(engine) as session, session.begin():
        tell(session, job_id, "round_finished", {})
        assert session.scalars(select(Delivery.event)).all() == ["job.submitted"]


def test_takers_at_once_get_each_message_once(
    engine: Engine, webhooks: WebhookStore, submitted: Callable[[], UUID]
) -> None:
    for _ in range(3):
        hearing(webhooks)
    for _ in range(10):
        submitted()
    seen: list[UUID] = []

    def work() -> None:
        queue = DeliveryQueue(engine)
        while len(seen) < 30:
            taken = queue.take(60)
            if taken is not None:
                seen.append(taken.id)
                queue.record(taken, Outcome(None, 204))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 30
    assert set(Counter(seen).values()) == {1}
    with Session(engine) as session:
        assert set(session.scalars(select(Delivery.attempts))) == {1}


def test_a_webhook_that_is_busy_leaves_its_turn_to_others(
    webhooks: WebhookStore, queue: DeliveryQueue, submitted: Callable[[], UUID]
) -> None:
    slow, quick = hearing(webhooks), hearing(webhooks)
    submitted()
    submitted()
    first = taken_from(queue)
    second = taken_from(queue)
    assert {first.url, second.url} == {URL}
    for webhook in (slow, quick):
        attempts = [row.attempts for row in webhooks.deliveries(webhook.id, limit=9).items]
        assert sorted(attempts) == [0, 1]
    assert queue.take(60) is None
    queue.record(second, Outcome(None, 204))
    assert taken_from(queue).id not in {first.id, second.id}


def test_an_outcome_that_comes_too_late_changes_nothing(
    engine: Engine, webhooks: WebhookStore, queue: DeliveryQueue, submitted: Callable[[], UUID]
) -> None:
    webhook = hearing(webhooks)
    submitted()
    late = taken_from(queue)
    with Session(engine) as session, session.begin():
        session.execute(update(Delivery).values(taken_until=func.now() - timedelta(seconds=1)))
    again = taken_from(queue)
    assert (again.id, again.attempt) == (late.id, 2)
    queue.record(late, Outcome("answered 410", 410, gone=True))
    assert webhooks.show(webhook.id).enabled
    queue.record(again, Outcome(None, 204))
    queue.record(again, Outcome("answered 500", 500))
    delivery = webhooks.delivery(webhook.id, again.id)
    assert (delivery.last_status, delivery.delivered_at is not None) == (204, True)


def test_a_replay_that_is_asked_for_meanwhile_is_sent_all_the_same(
    webhooks: WebhookStore, queue: DeliveryQueue, submitted: Callable[[], UUID]
) -> None:
    webhook = hearing(webhooks)
    submitted()
    first = taken_from(queue)
    webhooks.replay(webhook.id, first.id)
    assert queue.take(60) is None
    queue.record(first, Outcome(None, 204))
    again = taken_from(queue)
    assert again.id == first.id
    queue.record(again, Outcome(None, 204))
    assert queue.take(60) is None


def test_each_failure_waits_as_long_as_the_table_says(
    engine: Engine, webhooks: WebhookStore, queue: DeliveryQueue, submitted: Callable[[], UUID]
) -> None:
    webhook = hearing(webhooks)
    submitted()
    for delay in DELAYS:
        taken = taken_from(queue)
        queue.record(taken, Outcome("answered 500", 500))
        assert queue.take(60) is None
        due = webhooks.delivery(webhook.id, taken.id).next_try_at
        assert due is not None
        assert delay <= due - taken.at <= delay * 1.1 + timedelta(minutes=1)
        with Session(engine) as session, session.begin():
            session.execute(update(Delivery).values(next_try_at=func.now()))
    queue.record(taken_from(queue), Outcome("answered 500", 500))
    delivery = webhooks.delivery(webhook.id, taken.id)
    assert (delivery.attempts, delivery.next_try_at) == (1 + len(DELAYS), None)


def test_a_webhook_that_is_deleted_at_the_same_moment_does_not_fail_the_job(
    engine: Engine, webhooks: WebhookStore, submitted: Callable[[], UUID]
) -> None:
    webhook = hearing(webhooks)
    with Session(engine) as session:
        session.delete(session.get_one(Webhook, webhook.id))
        session.flush()
        made: list[UUID] = []
        thread = threading.Thread(target=lambda: made.append(submitted()))
        thread.start()
        # It waits for the end of the deletion, whose outcome it cannot know.
        thread.join(0.5)
        session.commit()
        thread.join()
    with Session(engine) as session:
        assert session.get(Job, made[0]) is not None
        assert session.scalars(select(Delivery)).all() == []


def test_a_job_does_not_wait_for_an_outcome_that_is_being_written(
    engine: Engine, webhooks: WebhookStore, submitted: Callable[[], UUID]
) -> None:
    webhook = hearing(webhooks)
    with Session(engine) as session:
        session.get(Webhook, webhook.id, with_for_update={"key_share": True})
        session.execute(update(Webhook).values(failing_since=func.now()))
        submitted()
        session.rollback()
    assert len(webhooks.deliveries(webhook.id, limit=9).items) == 1


def test_old_deliveries_are_forgotten_and_others_kept(
    engine: Engine, webhooks: WebhookStore, queue: DeliveryQueue, submitted: Callable[[], UUID]
) -> None:
    webhook = hearing(webhooks)
    submitted()
    with Session(engine) as session, session.begin():
        session.execute(update(Delivery).values(created_at=func.now() - timedelta(days=31)))
    submitted()
    assert queue.forget(timedelta(days=30)) == 1
    assert queue.forget(timedelta(days=30)) == 0
    assert len(webhooks.deliveries(webhook.id, limit=9).items) == 1
