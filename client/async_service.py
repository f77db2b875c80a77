"""The client for an event loop: `client.service`, awaited."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from client import calls, operations
from client.address import address, settings
from client.async_sender import AsyncSender
from client.calls import path_of
from client.effects import Call, Operation, once
from client.errors import UnreachableServiceError
from client.responses import (
    Artifact,
    ArtifactLink,
    Attempt,
    AuditEvent,
    Batch,
    BatchEstimate,
    BatchSummary,
    Dataset,
    Delivery,
    Estimate,
    Event,
    Expiries,
    Job,
    Key,
    LogLine,
    Me,
    Model,
    ModelPage,
    NewKey,
    Progress,
    Queue,
    Readiness,
    Round,
    Webhook,
    Worker,
)
from client.service import BonsaiClient
from client.tries import Patience
from client.watch import JobWatch

Value = TypeVar("Value")


class AsyncBonsaiClient:
    """The service at an address, for an event loop. Use it in an `async with` block, or close it.

    Its methods are those of `BonsaiClient`: what is an iterator there is one to `async for` over
    here, all else is awaited. Functions that it is given (`on_progress`, `on_bytes`) are called
    on the loop.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_seconds: float = 30.0,
    ) -> None:
        """See `BonsaiClient`."""
        self.base_url = address(base_url)
        try:
            self._http = httpx.AsyncClient(**settings(self.base_url, api_key, timeout_seconds))
        except httpx.InvalidURL as error:
            raise UnreachableServiceError(self.base_url, error) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def submit(
        self,
        request: Mapping[str, Any] | None = None,
        /,
        *,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Job:
        content = {**(request or {}), **fields}
        path = path_of("jobs")
        return await self._run(
            operations.submit(Job, path, content, idempotency_key, self.base_url)
        )

    async def validate(
        self, request: Mapping[str, Any] | None = None, /, **fields: Any
    ) -> Estimate:
        return await self._ask(calls.validate({**(request or {}), **fields}))

    async def submit_batch(
        self, request: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> Batch:
        path = path_of("batches")
        return await self._run(
            operations.submit(Batch, path, request, idempotency_key, self.base_url)
        )

    async def validate_batch(self, request: Mapping[str, Any]) -> BatchEstimate:
        return await self._ask(calls.validate_batch(request))

    async def batch(self, batch_id: str) -> Batch:
        return await self._ask(calls.batch(batch_id))

    async def cancel_batch(self, batch_id: str) -> Batch:
        return await self._ask(calls.cancel_batch(batch_id))

    async def job(self, job_id: str, *, wait_seconds: float = 0.0, state: str | None = None) -> Job:
        return await self._ask(calls.job(job_id, wait_seconds, state))

    def jobs(
        self,
        *,
        state: str | Sequence[str] | None = None,
        owner: str | None = None,
        labels: Mapping[str, str] | None = None,
        model: str | None = None,
        name: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        sort: str | None = None,
    ) -> AsyncIterator[Job]:
        moments = {"created_after": created_after, "created_before": created_before}
        said = {"owner": owner, "model": model, "name": name, "sort": sort}
        return self._items(operations.jobs(state, labels, moments, **said))

    async def edit(
        self,
        job_id: str,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        priority: str | None = None,
    ) -> Job:
        said = {"name": name, "labels": labels, "metadata": metadata, "priority": priority}
        changes = {key: value for key, value in said.items() if value is not None}
        return await self._ask(calls.edit(job_id, changes))

    async def rounds(self, job_id: str) -> list[Round]:
        path = path_of("jobs", job_id, "rounds")
        return [item async for item in self._items(operations.pages(Round, path))]

    async def queue(self, *, limit: int = 50) -> Queue:
        return await self._ask(calls.queue(limit))

    async def models(self) -> ModelPage:
        return await self._ask(calls.models())

    async def model(self, source: str) -> Model:
        return await self._ask(calls.model(source))

    def batches(self) -> AsyncIterator[BatchSummary]:
        return self._items(operations.pages(BatchSummary, path_of("batches")))

    def events(self, job_id: str) -> AsyncIterator[Event]:
        return self._items(operations.pages(Event, path_of("jobs", job_id, "events")))

    def watch(
        self, job_id: str, *, after: int = 0, patience_seconds: float = 120.0
    ) -> AsyncIterator[Event | Progress]:
        watch = JobWatch(path_of("jobs", job_id), after, Patience(patience_seconds))
        return self._items(watch.run())

    def logs(
        self,
        job_id: str,
        *,
        attempt: int | None = None,
        tail: int | None = None,
        follow: bool = False,
        patience_seconds: float = 120.0,
    ) -> AsyncIterator[LogLine]:
        patience = Patience(patience_seconds if follow else 0.0)
        return self._items(operations.logs(job_id, attempt, tail, follow, patience))

    async def artifacts(self, job_id: str) -> list[Artifact]:
        path = path_of("jobs", job_id, "artifacts")
        return [item async for item in self._items(operations.pages(Artifact, path))]

    async def artifact_link(self, job_id: str, name: str, *, seconds: int = 3600) -> ArtifactLink:
        return await self._ask(calls.artifact_link(job_id, name, seconds))

    async def attempts(self, job_id: str) -> list[Attempt]:
        path = path_of("jobs", job_id, "attempts")
        return [item async for item in self._items(operations.pages(Attempt, path))]

    async def pause(self, job_id: str) -> Job:
        return await self._ask(calls.ask(job_id, "pause"))

    async def resume(self, job_id: str) -> Job:
        return await self._ask(calls.ask(job_id, "resume"))

    async def retry(self, job_id: str) -> Job:
        return await self._ask(calls.ask(job_id, "retry"))

    async def cancel(self, job_id: str) -> Job:
        return await self._ask(calls.ask(job_id, "cancel"))

    async def readiness(self) -> Readiness:
        return await self._ask(calls.readiness())

    async def workers(self) -> list[Worker]:
        return [item async for item in self._items(operations.pages(Worker, path_of("workers")))]

    async def drain(self, name: str) -> Worker:
        return await self._ask(calls.drain(name))

    async def pin(self, job_id: str, *, pinned: bool = True) -> Job:
        return await self._ask(calls.ask(job_id, "pin" if pinned else "unpin"))

    async def collect(self, *, dry_run: bool = False) -> Expiries:
        return await self._ask(calls.collect(dry_run))

    async def upload_dataset(
        self, path: Path | str, *, name: str | None = None, owner: str | None = None
    ) -> Dataset:
        return await self._run(operations.upload_dataset(Path(path), name, owner))

    def datasets(self) -> AsyncIterator[Dataset]:
        return self._items(operations.pages(Dataset, path_of("datasets")))

    async def dataset(self, dataset_id: str) -> Dataset:
        return await self._ask(calls.dataset(dataset_id))

    async def download_dataset(self, dataset_id: str, folder: Path | str) -> Path:
        return await self._run(operations.download_dataset(dataset_id, Path(folder)))

    async def delete_dataset(self, dataset_id: str) -> None:
        await self._ask(calls.delete_dataset(dataset_id))

    async def create_webhook(
        self,
        url: str,
        *,
        events: Sequence[str] | None = None,
        owner: str | None = None,
        name: str | None = None,
    ) -> Webhook:
        return await self._ask(calls.create_webhook(url, events, owner, name))

    def webhooks(self) -> AsyncIterator[Webhook]:
        return self._items(operations.pages(Webhook, path_of("webhooks")))

    async def webhook(self, webhook_id: str) -> Webhook:
        return await self._ask(calls.webhook(webhook_id))

    async def update_webhook(self, webhook_id: str, **changes: Any) -> Webhook:
        return await self._ask(calls.update_webhook(webhook_id, changes))

    async def delete_webhook(self, webhook_id: str) -> None:
        await self._ask(calls.delete_webhook(webhook_id))

    async def test_webhook(self, webhook_id: str) -> Delivery:
        return await self._ask(calls.test_webhook(webhook_id))

    async def rotate_webhook_secret(self, webhook_id: str) -> Webhook:
        return await self._ask(calls.rotate_webhook_secret(webhook_id))

    def deliveries(self, webhook_id: str) -> AsyncIterator[Delivery]:
        path = path_of("webhooks", webhook_id, "deliveries")
        return self._items(operations.pages(Delivery, path))

    async def delivery(self, webhook_id: str, delivery_id: str) -> Delivery:
        return await self._ask(calls.delivery(webhook_id, delivery_id))

    async def replay(self, webhook_id: str, delivery_id: str) -> Delivery:
        return await self._ask(calls.replay(webhook_id, delivery_id))

    async def me(self) -> Me:
        return await self._ask(calls.me())

    async def keys(self) -> list[Key]:
        return [item async for item in self._items(operations.pages(Key, path_of("keys")))]

    async def key(self, key_id: str) -> Key:
        return await self._ask(calls.key(key_id))

    async def create_key(
        self,
        name: str,
        role: str,
        *,
        owner: str = "default",
        expires_at: datetime | None = None,
    ) -> NewKey:
        return await self._ask(calls.create_key(name, role, owner, expires_at))

    async def rotate_key(self, key_id: str, *, grace_seconds: int | None = None) -> NewKey:
        return await self._ask(calls.rotate_key(key_id, grace_seconds))

    async def revoke_key(self, key_id: str) -> Key:
        return await self._ask(calls.revoke_key(key_id))

    def audit(self) -> AsyncIterator[AuditEvent]:
        return self._items(operations.pages(AuditEvent, path_of("audit")))

    async def wait(
        self,
        job_id: str,
        *,
        poll_seconds: float = 30.0,
        timeout_seconds: float | None = None,
        on_progress: Callable[[Job], None] | None = None,
        patience_seconds: float = 120.0,
    ) -> Job:
        patience = Patience(patience_seconds)
        return await self._run(
            operations.wait(job_id, poll_seconds, timeout_seconds, on_progress, patience)
        )

    async def download(
        self,
        job_id: str,
        folder: Path | str,
        *,
        on_bytes: Callable[[Artifact, int], None] | None = None,
    ) -> list[Path]:
        return await self._run(operations.download(job_id, Path(folder), on_bytes))

    async def download_archive(self, job_id: str, target: Path | str) -> Path:
        return await self._run(operations.download_archive(job_id, Path(target)))

    async def _ask(self, call: Call[Value]) -> Value:
        return await self._run(once(call))

    async def _run(self, operation: Operation[Value]) -> Value:
        return await AsyncSender(self._http).run(operation)

    def _items(self, operation: Operation[None]) -> AsyncIterator[Any]:
        return AsyncSender(self._http).items(operation)


for _name, _method in vars(AsyncBonsaiClient).items():
    if not _name.startswith("_") and _method.__doc__ is None:
        _method.__doc__ = getattr(BonsaiClient, _name).__doc__
