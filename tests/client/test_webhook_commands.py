"""`bonsai webhooks` against the real service, which sends for itself."""

import json
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import Any

import pytest
from typer.testing import Result

from client import BonsaiClient, ServiceError
from jobs.settings import Settings
from tests.receiver import Receiver

Bonsai = Callable[..., Result]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Webhooks may reach this machine."""
    return settings.model_copy(update={"webhook_networks": (ip_network("127.0.0.0/8"),)})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def created(bonsai: Bonsai, url: str, *arguments: str) -> dict[str, Any]:
    result = bonsai("webhooks", "create", url, *arguments, "--json")
    assert result.exit_code == 0, result.output
    webhook: dict[str, Any] = json.loads(result.stdout)
    return webhook


def test_a_webhook_is_made_shown_changed_and_removed(bonsai: Bonsai, receiver: Receiver) -> None:
    more = (
        "--event",
        "job.failed",
        "--event",
        "job.running",
        "--owner",
        "search",
        "--name",
        "hook",
    )
    webhook = created(bonsai, receiver.url, *more)
    assert webhook["events"] == ["job.failed", "job.running"]
    assert (webhook["owner"], webhook["name"]) == ("search", "hook")
    shown = bonsai("webhooks", "show", webhook["id"]).stdout
    assert receiver.url in shown
    assert webhook["secret"] not in shown
    listed = bonsai("webhooks", "list").stdout
    assert webhook["id"] in listed
    assert "enabled" in listed
    changed = bonsai("webhooks", "update", webhook["id"], "--disable", "--event", "job.paused")
    assert "disabled" in changed.stdout
    assert "job.paused" in changed.stdout
    (found,) = json.loads(bonsai("webhooks", "list", "--json").stdout)
    assert (found["enabled"], found["events"]) == (False, ["job.paused"])
    assert "enabled" in bonsai("webhooks", "update", webhook["id"], "--enable").stdout
    assert bonsai("webhooks", "delete", webhook["id"]).exit_code == 0
    gone = bonsai("webhooks", "show", webhook["id"])
    assert gone.exit_code == 1
    assert "no webhook" in gone.stderr


def test_a_secret_is_shown_when_it_is_made(bonsai: Bonsai, receiver: Receiver) -> None:
    assert "whsec_" in bonsai("webhooks", "create", receiver.url).stdout
    webhook = created(bonsai, receiver.url)
    rotated = bonsai("webhooks", "rotate-secret", webhook["id"]).stdout
    assert "whsec_" in rotated
    assert "old secret until" in rotated
    assert webhook["secret"] not in rotated


def test_a_test_tells_by_its_exit_code_whether_it_has_arrived(
    bonsai: Bonsai, receiver: Receiver
) -> None:
    receiver.statuses = [500, 204]
    webhook = created(bonsai, receiver.url)
    failed = bonsai("webhooks", "test", webhook["id"])
    assert failed.exit_code == 1
    assert "answered 500" in failed.stdout
    (delivery,) = json.loads(bonsai("webhooks", "deliveries", webhook["id"], "--json").stdout)
    assert (delivery["state"], delivery["last_status"]) == ("failed", 500)
    replayed = bonsai("webhooks", "replay", webhook["id"], delivery["id"], "--json")
    assert replayed.exit_code == 0
    assert json.loads(replayed.stdout)["state"] == "delivered"
    assert "delivered" in bonsai("webhooks", "deliveries", webhook["id"]).stdout
    assert receiver.messages[1].verified(webhook["secret"])["type"] == "webhook.test"


def test_a_url_that_nothing_is_sent_to_is_explained(bonsai: Bonsai) -> None:
    result = bonsai("webhooks", "create", "http://10.0.0.1/")
    assert result.exit_code == 1
    assert "not on the internet" in result.stderr
    assert "allowed: https" in result.stderr


def test_the_client_has_a_method_for_each(
    client: BonsaiClient, receiver: Receiver, body: dict[str, Any]
) -> None:
    webhook = client.create_webhook(receiver.url, events=["job.submitted"])
    job = client.submit(body)
    (message,) = receiver.wait_for(1)
    assert message.verified(webhook.secret)["data"]["job_id"] == job.id
    (delivery,) = client.deliveries(webhook.id)
    assert client.delivery(webhook.id, delivery.id).event == "job.submitted"
    client.replay(webhook.id, delivery.id)
    receiver.wait_for(2)
    assert client.rotate_webhook_secret(webhook.id).secret != webhook.secret
    assert not client.update_webhook(webhook.id, enabled=False).enabled
    with pytest.raises(ServiceError, match="is disabled"):
        client.test_webhook(webhook.id)
    assert [found.id for found in client.webhooks()] == [webhook.id]
    client.delete_webhook(webhook.id)
    with pytest.raises(ServiceError, match="no webhook"):
        client.webhook(webhook.id)
