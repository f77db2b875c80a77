"""Webhooks over HTTP, with the sender of the application itself."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, func, update
from sqlalchemy.orm import Session

from api.app import create_app
from jobs.deliveries import WebhookEvent
from jobs.records import Delivery
from jobs.settings import Settings
from tests.api.problems import only_error, require_problem
from tests.fake_worker import FakeWorker
from tests.receiver import Receiver

ENDS = ["job.succeeded", "job.failed", "job.cancelled"]


@pytest.fixture
def reaching(settings: Settings, engine: Engine) -> Iterator[TestClient]:
    """A service whose operator lets webhooks reach this machine."""
    del engine
    networks = (ip_network("127.0.0.0/8"),)
    local = settings.model_copy(update={"webhook_networks": networks})
    with TestClient(create_app(local), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def create(client: TestClient, **request: Any) -> dict[str, Any]:
    response = client.post("/v1/webhooks", json=request)
    assert response.status_code == 201, response.text
    webhook: dict[str, Any] = response.json()
    assert response.headers["location"] == webhook["links"]["self"]
    return webhook


def test_the_secret_is_shown_once(reaching: TestClient, receiver: Receiver) -> None:
    webhook = create(reaching, url=receiver.url, name="platform")
    assert webhook["secret"].startswith("whsec_")
    assert (webhook["events"], webhook["owner"], webhook["enabled"]) == (ENDS, "default", True)
    masked = {**webhook, "secret": f"whsec_...{webhook['secret'][-4:]}"}
    assert reaching.get(webhook["links"]["self"]).json() == masked
    assert reaching.get("/v1/webhooks").json() == {"items": [masked], "next_cursor": None}
    assert reaching.patch(webhook["links"]["self"], json={}).json() == masked
    rotated = reaching.post(webhook["links"]["rotate_secret"]).json()
    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != webhook["secret"]
    until = datetime.fromisoformat(rotated["previous_secret_until"])
    left = until - datetime.now(until.tzinfo)
    assert timedelta(hours=23) < left < timedelta(hours=25)


def test_what_happens_to_a_job_is_told_to_who_wants_it(
    reaching: TestClient, receiver: Receiver, body: dict[str, Any], worker: FakeWorker
) -> None:
    webhook = create(reaching, url=receiver.url, owner="search", events=["job.succeeded"] * 2)
    assert webhook["events"] == ["job.succeeded"]
    create(reaching, url=receiver.url, owner="others", events=list(WebhookEvent))
    off = create(reaching, url=receiver.url, owner="search")
    assert not reaching.patch(off["links"]["self"], json={"enabled": False}).json()["enabled"]
    job = reaching.post("/v1/jobs", json={**body, "owner": "search"}).json()
    worker.succeed(worker.claim(), {})
    (message,) = receiver.wait_for(1)
    told = message.verified(webhook["secret"])
    assert (told["type"], told["data"]["state"]) == ("job.succeeded", "succeeded")
    assert told["data"]["job_id"] == job["id"]
    assert reaching.get(told["data"]["links"]["self"]).json()["id"] == job["id"]
    delivery = arrived(reaching, webhook)
    assert delivery["id"] == message.headers["webhook-id"]
    assert (delivery["event"], delivery["attempts"]) == ("job.succeeded", 1)
    assert (delivery["last_status"], delivery["next_try_at"]) == (204, None)
    assert reaching.get(off["links"]["deliveries"]).json()["items"] == []


def arrived(client: TestClient, webhook: dict[str, Any]) -> dict[str, Any]:
    """The only delivery of a webhook, once it is written that it has arrived."""
    while True:
        (delivery,) = client.get(webhook["links"]["deliveries"]).json()["items"]
        if delivery["state"] != "pending":
            assert delivery["delivered_at"] is not None
            return dict(delivery)


def test_each_event_of_a_life_has_its_name(
    reaching: TestClient, receiver: Receiver, body: dict[str, Any], worker: FakeWorker
) -> None:
    webhook = create(reaching, url=receiver.url, events=list(WebhookEvent))
    links = reaching.post("/v1/jobs", json=body).json()["links"]
    reaching.post(links["pause"])
    reaching.post(links["resume"])
    worker.release(worker.claim(), "drained")
    worker.fail(worker.claim())
    links = reaching.post(links["retry"]).json()["links"]
    reaching.post(links["cancel"])
    wanted = [
        *("submitted", "paused", "resumed", "running", "requeued", "running", "failed"),
        *("submitted", "cancelled"),
    ]
    receiver.wait_for(len(wanted))
    items = reaching.get(webhook["links"]["deliveries"]).json()["items"]
    assert [item["event"] for item in reversed(items)] == [f"job.{name}" for name in wanted]


def test_a_ping_arrives_and_may_be_sent_again(reaching: TestClient, receiver: Receiver) -> None:
    webhook = create(reaching, url=receiver.url)
    response = reaching.post(webhook["links"]["test"])
    assert response.status_code == 202
    ping = response.json()
    assert (ping["event"], ping["state"], ping["attempts"]) == ("webhook.test", "pending", 0)
    receiver.wait_for(1)
    arrived(reaching, webhook)
    again = reaching.post(ping["links"]["replay"])
    assert (again.status_code, again.json()["state"]) == (202, "pending")
    first, second = receiver.wait_for(2)
    assert first.content == second.content
    assert {ping["id"]} == {message.headers["webhook-id"] for message in (first, second)}
    shown = reaching.get(ping["links"]["self"]).json()
    assert (shown["id"], shown["attempts"]) == (ping["id"], 2)


def test_nothing_is_sent_to_a_disabled_webhook(reaching: TestClient, receiver: Receiver) -> None:
    webhook = create(reaching, url=receiver.url)
    ping = reaching.post(webhook["links"]["test"]).json()
    receiver.wait_for(1)
    reaching.patch(webhook["links"]["self"], json={"enabled": False})
    for link in (webhook["links"]["test"], ping["links"]["replay"]):
        problem = require_problem(reaching.post(link), 409, "webhook_disabled")
        assert '"enabled": true' in problem["detail"]
    assert reaching.patch(webhook["links"]["self"], json={"enabled": True}).json()["enabled"]
    assert reaching.post(webhook["links"]["test"]).status_code == 202


def test_what_is_changed_is_changed_and_nothing_else(
    reaching: TestClient, receiver: Receiver
) -> None:
    webhook = create(reaching, url=receiver.url)
    change = {"url": f"{receiver.url}&more=1", "events": ["job.expiring"], "name": "other"}
    changed = reaching.patch(webhook["links"]["self"], json=change).json()
    masked = {**webhook, "secret": changed["secret"]}
    assert changed == {**masked, **change}


def test_a_deleted_webhook_is_gone_with_its_log(
    reaching: TestClient, receiver: Receiver, body: dict[str, Any]
) -> None:
    webhook = create(reaching, url=receiver.url, events=list(WebhookEvent))
    assert reaching.post("/v1/jobs", json=body).status_code == 201
    response = reaching.delete(webhook["links"]["self"])
    assert (response.status_code, response.content) == (204, b"")
    for method, link in (("GET", "self"), ("DELETE", "self"), ("GET", "deliveries")):
        response = reaching.request(method, webhook["links"][link])
        require_problem(response, 404, "webhook_not_found")
    assert reaching.post("/v1/jobs", json=body).status_code == 201


def test_lists_come_page_by_page_newest_first(
    reaching: TestClient, receiver: Receiver, engine: Engine
) -> None:
    webhooks = [create(reaching, url=receiver.url)["id"] for _ in range(5)]
    assert paged(reaching, "/v1/webhooks") == webhooks[::-1]
    path = f"/v1/webhooks/{webhooks[0]}"
    pings = [reaching.post(f"{path}/test").json()["id"] for _ in range(5)]
    # Within one transaction's time the id decides.
    with Session(engine) as session, session.begin():
        session.execute(update(Delivery).values(created_at=func.now()))
    assert sorted(paged(reaching, f"{path}/deliveries")) == sorted(pings)


def paged(client: TestClient, path: str) -> list[str]:
    found, cursor = [], None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = client.get(path, params=query).json()
        found += [item["id"] for item in page["items"]]
        assert len(page["items"]) <= 2
        cursor = page["next_cursor"]
        if cursor is None:
            return found


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://169.254.169.254/latest/meta-data", "not on the internet"),
        ("https://localhost/hook", "not on the internet"),
        ("http://93.184.215.14/hook", "plain http"),
        ("https://user:secret@93.184.215.14/hook", "credentials"),
        ("file:///etc/passwd", "scheme"),
        ("https://nowhere.invalid/", "no address"),
    ],
)
def test_a_url_that_nothing_is_sent_to_is_refused_by_name(
    client: TestClient, url: str, words: str
) -> None:
    error = only_error(
        require_problem(client.post("/v1/webhooks", json={"url": url}), 422, "refused_url")
    )
    assert (error["pointer"], error["value"]) == ("/url", url)
    assert words in error["message"]
    assert "BONSAI_WEBHOOK_NETWORKS" in error["message"]
    assert "https to an address on the internet" in error["allowed"]
    webhook = create(client, url="https://93.184.215.14/hook")
    response = client.patch(webhook["links"]["self"], json={"url": url})
    require_problem(response, 422, "refused_url")
    assert client.get(webhook["links"]["self"]).json()["url"] == "https://93.184.215.14/hook"


@pytest.mark.parametrize(
    ("change", "pointer", "allowed"),
    [
        ({"events": ["job.exploded"]}, "/events/0", "job.succeeded"),
        ({"events": []}, "/events", "at least 1 of them"),
        ({"owner": "two words"}, "/owner", "matching"),
        ({"name": "x" * 201}, "/name", "at most 200 characters"),
        ({"url": "x" * 2001}, "/url", "at most 2000 characters"),
        ({"name": "a\0b"}, "/name", "a string"),
        ({"until": 1}, "/until", "url, events, owner, name"),
    ],
)
def test_a_webhook_that_cannot_be_is_refused_by_name(
    client: TestClient, change: dict[str, Any], pointer: str, allowed: str
) -> None:
    request = {"url": "https://93.184.215.14/hook", **change}
    response = client.post("/v1/webhooks", json=request)
    error = only_error(require_problem(response, 422, "invalid_request"))
    assert error["pointer"] == pointer
    assert allowed in error["allowed"]


def test_a_change_that_cannot_be_is_refused_by_its_own_fields(client: TestClient) -> None:
    webhook = create(client, url="https://93.184.215.14/hook")
    response = client.patch(webhook["links"]["self"], json={"owner": "others"})
    error = only_error(require_problem(response, 422, "invalid_request"))
    assert error["allowed"] == "the fields url, events, name, enabled"


def test_what_is_not_there_is_a_problem(client: TestClient) -> None:
    path = f"/v1/webhooks/{uuid4()}"
    for method, rest in (
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/test"),
        ("POST", "/rotate-secret"),
        ("GET", "/deliveries"),
        ("GET", f"/deliveries/{uuid4()}"),
        ("POST", f"/deliveries/{uuid4()}/replay"),
    ):
        json = {} if method == "PATCH" else None
        require_problem(client.request(method, path + rest, json=json), 404, "webhook_not_found")
    one, other = (create(client, url="https://93.184.215.14/")["links"] for _ in range(2))
    ping = client.post(one["test"]).json()
    foreign = f"{other['deliveries']}/{ping['id']}"
    require_problem(client.get(foreign), 404, "delivery_not_found")
    require_problem(client.post(f"{foreign}/replay"), 404, "delivery_not_found")
    for path in ("/v1/webhooks", one["deliveries"]):
        response = client.get(path, params={"cursor": "nonsense"})
        require_problem(response, 422, "invalid_cursor")
