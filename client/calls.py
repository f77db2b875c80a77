"""The requests that get one answer: where each goes, and what comes back."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from client.effects import Call
from client.responses import (
    ArtifactLink,
    Batch,
    BatchEstimate,
    Dataset,
    Delivery,
    Estimate,
    Expiries,
    Job,
    Key,
    Me,
    Model,
    ModelPage,
    NewKey,
    Queue,
    Readiness,
    Webhook,
    Worker,
)


def path_of(*steps: str) -> str:
    """A path, of parts that may hold anything."""
    return "/" + "/".join(["v1", *(quote(step, safe="") for step in steps)])


def validate(request: Mapping[str, Any]) -> Call[Estimate]:
    return _post(Estimate, path_of("jobs"), json=request, params={"validate_only": True})


def job(job_id: str, wait_seconds: float = 0.0, state: str | None = None) -> Call[Job]:
    query = {"wait": wait_seconds} if wait_seconds else {}
    said = {"state": state} if wait_seconds and state else {}
    content = {"params": query | said}
    return Call(Job, "GET", path_of("jobs", job_id), content, wait_seconds)


def ask(job_id: str, wish: str) -> Call[Job]:
    """`pause`, `resume`, `cancel`, `retry`, `pin` or `unpin`."""
    return _post(Job, path_of("jobs", job_id, wish))


def edit(job_id: str, changes: Mapping[str, Any]) -> Call[Job]:
    return Call(Job, "PATCH", path_of("jobs", job_id), {"json": changes})


def queue(limit: int) -> Call[Queue]:
    return Call(Queue, "GET", path_of("queue"), {"params": {"limit": limit}})


def models() -> Call[ModelPage]:
    return _get(ModelPage, path_of("models"))


def model(source: str) -> Call[Model]:
    return Call(Model, "GET", path_of("models", "inspect"), {"params": {"source": source}})


def artifact_link(job_id: str, name: str, seconds: int) -> Call[ArtifactLink]:
    path = f"{path_of('jobs', job_id, 'artifacts')}/{quote(name)}/link"
    return Call(ArtifactLink, "GET", path, {"params": {"seconds": seconds}})


def validate_batch(request: Mapping[str, Any]) -> Call[BatchEstimate]:
    return _post(BatchEstimate, path_of("batches"), json=request, params={"validate_only": True})


def batch(batch_id: str) -> Call[Batch]:
    return _get(Batch, path_of("batches", batch_id))


def cancel_batch(batch_id: str) -> Call[Batch]:
    return _post(Batch, path_of("batches", batch_id, "cancel"))


def readiness() -> Call[Readiness]:
    return _get(Readiness, "/readyz")


def drain(name: str) -> Call[Worker]:
    return _post(Worker, path_of("workers", name, "drain"))


def collect(dry_run: bool) -> Call[Expiries]:
    return _post(Expiries, path_of("gc"), params={"dry_run": dry_run})


def dataset(dataset_id: str) -> Call[Dataset]:
    return _get(Dataset, path_of("datasets", dataset_id))


def delete_dataset(dataset_id: str) -> Call[None]:
    return Call(None, "DELETE", path_of("datasets", dataset_id))


def create_webhook(
    url: str, events: Sequence[str] | None, owner: str | None, name: str | None
) -> Call[Webhook]:
    wanted = {"url": url, "events": events, "owner": owner, "name": name}
    said = {key: value for key, value in wanted.items() if value is not None}
    return _post(Webhook, path_of("webhooks"), json=said)


def webhook(webhook_id: str) -> Call[Webhook]:
    return _get(Webhook, path_of("webhooks", webhook_id))


def update_webhook(webhook_id: str, changes: Mapping[str, Any]) -> Call[Webhook]:
    return Call(Webhook, "PATCH", path_of("webhooks", webhook_id), {"json": changes})


def delete_webhook(webhook_id: str) -> Call[None]:
    return Call(None, "DELETE", path_of("webhooks", webhook_id))


def test_webhook(webhook_id: str) -> Call[Delivery]:
    return _post(Delivery, path_of("webhooks", webhook_id, "test"))


def rotate_webhook_secret(webhook_id: str) -> Call[Webhook]:
    return _post(Webhook, path_of("webhooks", webhook_id, "rotate-secret"))


def delivery(webhook_id: str, delivery_id: str) -> Call[Delivery]:
    return _get(Delivery, path_of("webhooks", webhook_id, "deliveries", delivery_id))


def replay(webhook_id: str, delivery_id: str) -> Call[Delivery]:
    return _post(Delivery, path_of("webhooks", webhook_id, "deliveries", delivery_id, "replay"))


def me() -> Call[Me]:
    return _get(Me, path_of("me"))


def key(key_id: str) -> Call[Key]:
    return _get(Key, path_of("keys", key_id))


def create_key(name: str, role: str, owner: str, expires_at: datetime | None) -> Call[NewKey]:
    said = {"name": name, "role": role, "owner": owner}
    expiry = {"expires_at": expires_at.isoformat()} if expires_at else {}
    return _post(NewKey, path_of("keys"), json=said | expiry)


def rotate_key(key_id: str, grace_seconds: int | None) -> Call[NewKey]:
    said = {} if grace_seconds is None else {"grace_seconds": grace_seconds}
    return _post(NewKey, path_of("keys", key_id, "rotate"), json=said)


def revoke_key(key_id: str) -> Call[Key]:
    return _post(Key, path_of("keys", key_id, "revoke"))


def _get(model: Any, path: str) -> Call[Any]:
    return Call(model, "GET", path)


def _post(model: Any, path: str, **content: Any) -> Call[Any]:
    return Call(model, "POST", path, content)
