"""The client: one method for each thing the service can do, and those that take long."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from client import calls, operations
from client.address import address, settings
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
from client.sender import Sender
from client.tries import Patience
from client.watch import JobWatch

Value = TypeVar("Value")


class BonsaiClient:
    """The service at an address. Use it in a `with` block, or close it.

    Every method raises ServiceError when the service answers with a problem, and
    UnreachableServiceError when there is no answer. `AsyncBonsaiClient` has the same methods.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_seconds: float = 30.0,
    ) -> None:
        """Without `base_url`, the environment variable BONSAI_URL or this machine, port 8000;
        without `api_key`, the environment variable BONSAI_API_KEY or none."""
        self.base_url = address(base_url)
        try:
            self._http = httpx.Client(**settings(self.base_url, api_key, timeout_seconds))
        except httpx.InvalidURL as error:
            raise UnreachableServiceError(self.base_url, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def submit(
        self,
        request: Mapping[str, Any] | None = None,
        /,
        *,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Job:
        """Submit a job: a whole request, or its fields by name.

        It is tried again while no answer comes, and makes one job all the same: each call has a key
        of its own. With an `idempotency_key` of yours, so do several calls with the same request.
        """
        content = {**(request or {}), **fields}
        path = path_of("jobs")
        return self._run(operations.submit(Job, path, content, idempotency_key, self.base_url))

    def validate(self, request: Mapping[str, Any] | None = None, /, **fields: Any) -> Estimate:
        """Have a job checked as `submit` would, and hear what it would take; nothing is stored."""
        return self._ask(calls.validate({**(request or {}), **fields}))

    def submit_batch(
        self, request: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> Batch:
        """Submit many jobs, all or none: `jobs`, or a `template` with `models`, `sparsities`.

        Tried again as `submit`.
        """
        path = path_of("batches")
        return self._run(operations.submit(Batch, path, request, idempotency_key, self.base_url))

    def validate_batch(self, request: Mapping[str, Any]) -> BatchEstimate:
        """Have many jobs checked as `submit_batch` would, and hear what each would take."""
        return self._ask(calls.validate_batch(request))

    def batch(self, batch_id: str) -> Batch:
        """How the jobs of a batch fare."""
        return self._ask(calls.batch(batch_id))

    def cancel_batch(self, batch_id: str) -> Batch:
        """Ask every job of a batch to end that has not."""
        return self._ask(calls.cancel_batch(batch_id))

    def job(self, job_id: str, *, wait_seconds: float = 0.0, state: str | None = None) -> Job:
        """One job as it is now; with `wait_seconds`, as soon as it is in another state than `state`
        (default: the one that it is in), or has ended, or the time is over."""
        return self._ask(calls.job(job_id, wait_seconds, state))

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
    ) -> Iterator[Job]:
        """Jobs, fetched page by page as they are asked for; those that pass all filters.

        Args:
            state: one of these.
            labels: all of these.
            model: its source, as submitted.
            created_after: this moment or later.
            created_before: earlier.
            sort: -created_at (default), created_at, -finished_at or finished_at."""
        moments = {"created_after": created_after, "created_before": created_before}
        said = {"owner": owner, "model": model, "name": name, "sort": sort}
        return self._items(operations.jobs(state, labels, moments, **said))

    def edit(
        self,
        job_id: str,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        priority: str | None = None,
    ) -> Job:
        """Change what people say of a job, or its priority while it waits. What is None stays;
        labels and metadata are replaced as a whole."""
        said = {"name": name, "labels": labels, "metadata": metadata, "priority": priority}
        changes = {key: value for key, value in said.items() if value is not None}
        return self._ask(calls.edit(job_id, changes))

    def rounds(self, job_id: str) -> list[Round]:
        """What each round of a job did, the first one first."""
        path = path_of("jobs", job_id, "rounds")
        return list(self._items(operations.pages(Round, path)))

    def queue(self, *, limit: int = 50) -> Queue:
        """What runs, and the first jobs that wait, in the order in which they would be taken."""
        return self._ask(calls.queue(limit))

    def models(self) -> ModelPage:
        """The models in the folders that the operator has named."""
        return self._ask(calls.models())

    def model(self, source: str) -> Model:
        """A model that a job may name, and what may go of it."""
        return self._ask(calls.model(source))

    def batches(self) -> Iterator[BatchSummary]:
        """All batches, newest first."""
        return self._items(operations.pages(BatchSummary, path_of("batches")))

    def events(self, job_id: str) -> Iterator[Event]:
        """All that has happened to a job so far, oldest first."""
        return self._items(operations.pages(Event, path_of("jobs", job_id, "events")))

    def watch(
        self, job_id: str, *, after: int = 0, patience_seconds: float = 120.0
    ) -> Iterator[Event | Progress]:
        """Events as they happen, after those up to sequence `after`, and progress as it changes, to
        the job's end.

        A connection that breaks is made again, and nothing is missed or said twice; where no stream
        comes through, the service is asked in a way that makes it wait. One that is away, as in a
        restart, is waited for up to `patience_seconds` before its error is raised.
        """
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
    ) -> Iterator[LogLine]:
        """What the process of an attempt has said, oldest first; by default of the last attempt.

        Args:
            tail: begin with the last so many lines, 1000 at most.
            follow: go on with what comes, until the attempt has ended.
            patience_seconds: how long a service that is away is waited for, to follow.
        """
        patience = Patience(patience_seconds if follow else 0.0)
        return self._items(operations.logs(job_id, attempt, tail, follow, patience))

    def artifacts(self, job_id: str) -> list[Artifact]:
        """The published files of a job; none before it has succeeded."""
        path = path_of("jobs", job_id, "artifacts")
        return list(self._items(operations.pages(Artifact, path)))

    def artifact_link(self, job_id: str, name: str, *, seconds: int = 3600) -> ArtifactLink:
        """A URL at which the store itself gives out a file for so long; only a store of objects has
        such, else it is a ServiceError (409)."""
        return self._ask(calls.artifact_link(job_id, name, seconds))

    def attempts(self, job_id: str) -> list[Attempt]:
        """The workers' holds on a job, the first one first."""
        path = path_of("jobs", job_id, "attempts")
        return list(self._items(operations.pages(Attempt, path)))

    def pause(self, job_id: str) -> Job:
        """Ask a job to wait; a running one does so after the forward pass in flight."""
        return self._ask(calls.ask(job_id, "pause"))

    def resume(self, job_id: str) -> Job:
        """Let a paused job go on from what it has evaluated."""
        return self._ask(calls.ask(job_id, "resume"))

    def retry(self, job_id: str) -> Job:
        """A new job that goes on from what a failed or cancelled one has evaluated."""
        return self._ask(calls.ask(job_id, "retry"))

    def cancel(self, job_id: str) -> Job:
        """Ask a job to end; a running one does so after the forward pass in flight."""
        return self._ask(calls.ask(job_id, "cancel"))

    def readiness(self) -> Readiness:
        """What does not work of a service that takes jobs; ServiceError when it takes none."""
        return self._ask(calls.readiness())

    def workers(self) -> list[Worker]:
        """The workers that run, and those lost lately."""
        return list(self._items(operations.pages(Worker, path_of("workers"))))

    def drain(self, name: str) -> Worker:
        """Have a worker give its job back and stop."""
        return self._ask(calls.drain(name))

    def pin(self, job_id: str, *, pinned: bool = True) -> Job:
        """Keep the files of a job whatever its age, or no longer."""
        return self._ask(calls.ask(job_id, "pin" if pinned else "unpin"))

    def collect(self, *, dry_run: bool = False) -> Expiries:
        """Announce the end of files that are not kept any longer, and remove those announced
        before; with `dry_run`, only tell which."""
        return self._ask(calls.collect(dry_run))

    def upload_dataset(
        self, path: Path | str, *, name: str | None = None, owner: str | None = None
    ) -> Dataset:
        """Upload a text (.txt, .jsonl) for jobs to calibrate on: its `source` goes where a job says
        its own. The same content again is the same data set."""
        return self._run(operations.upload_dataset(Path(path), name, owner))

    def datasets(self) -> Iterator[Dataset]:
        """All uploaded texts, newest first."""
        return self._items(operations.pages(Dataset, path_of("datasets")))

    def dataset(self, dataset_id: str) -> Dataset:
        """One uploaded text."""
        return self._ask(calls.dataset(dataset_id))

    def download_dataset(self, dataset_id: str, folder: Path | str) -> Path:
        """Download an uploaded text into `folder`, and check it against its digest."""
        return self._run(operations.download_dataset(dataset_id, Path(folder)))

    def delete_dataset(self, dataset_id: str) -> None:
        """Remove an uploaded text that no job needs any more."""
        self._ask(calls.delete_dataset(dataset_id))

    def create_webhook(
        self,
        url: str,
        *,
        events: Sequence[str] | None = None,
        owner: str | None = None,
        name: str | None = None,
    ) -> Webhook:
        """Have an address told what happens to the jobs of an owner; by default, that they have
        ended. Its secret is in the answer, and in no other."""
        return self._ask(calls.create_webhook(url, events, owner, name))

    def webhooks(self) -> Iterator[Webhook]:
        """All webhooks, newest first."""
        return self._items(operations.pages(Webhook, path_of("webhooks")))

    def webhook(self, webhook_id: str) -> Webhook:
        """One webhook as it is now."""
        return self._ask(calls.webhook(webhook_id))

    def update_webhook(self, webhook_id: str, **changes: Any) -> Webhook:
        """Change `url`, `events`, `name` or `enabled`."""
        return self._ask(calls.update_webhook(webhook_id, changes))

    def delete_webhook(self, webhook_id: str) -> None:
        """Remove a webhook with its log."""
        self._ask(calls.delete_webhook(webhook_id))

    def test_webhook(self, webhook_id: str) -> Delivery:
        """Queue a message that says nothing; `delivery` tells how that went."""
        return self._ask(calls.test_webhook(webhook_id))

    def rotate_webhook_secret(self, webhook_id: str) -> Webhook:
        """Give a webhook another secret, which is in the answer; for a while both sign."""
        return self._ask(calls.rotate_webhook_secret(webhook_id))

    def deliveries(self, webhook_id: str) -> Iterator[Delivery]:
        """What was and will be sent to a webhook, newest first."""
        path = path_of("webhooks", webhook_id, "deliveries")
        return self._items(operations.pages(Delivery, path))

    def delivery(self, webhook_id: str, delivery_id: str) -> Delivery:
        """One delivery as it is now."""
        return self._ask(calls.delivery(webhook_id, delivery_id))

    def replay(self, webhook_id: str, delivery_id: str) -> Delivery:
        """Send a delivery now, whatever has become of it."""
        return self._ask(calls.replay(webhook_id, delivery_id))

    def me(self) -> Me:
        """Whom the service takes us for."""
        return self._ask(calls.me())

    def keys(self) -> list[Key]:
        """All API keys, newest first; for admins."""
        return list(self._items(operations.pages(Key, path_of("keys"))))

    def key(self, key_id: str) -> Key:
        """One API key; for admins."""
        return self._ask(calls.key(key_id))

    def create_key(
        self,
        name: str,
        role: str,
        *,
        owner: str = "default",
        expires_at: datetime | None = None,
    ) -> NewKey:
        """Make an API key; the only time that its text is seen. For admins."""
        return self._ask(calls.create_key(name, role, owner, expires_at))

    def rotate_key(self, key_id: str, *, grace_seconds: int | None = None) -> NewKey:
        """Give an API key another text; the one before stays valid for so long (default: a day).
        For admins."""
        return self._ask(calls.rotate_key(key_id, grace_seconds))

    def revoke_key(self, key_id: str) -> Key:
        """End an API key at once; for admins."""
        return self._ask(calls.revoke_key(key_id))

    def audit(self) -> Iterator[AuditEvent]:
        """What was done through the API, newest first; for admins."""
        return self._items(operations.pages(AuditEvent, path_of("audit")))

    def wait(
        self,
        job_id: str,
        *,
        poll_seconds: float = 30.0,
        timeout_seconds: float | None = None,
        on_progress: Callable[[Job], None] | None = None,
        patience_seconds: float = 120.0,
    ) -> Job:
        """Wait until a job has come to its end, however it ends, or `timeout_seconds` are over: the
        job as it is then.

        The service answers when the job's state has changed, and after `poll_seconds` (60 at most)
        at the latest; `on_progress` gets the job each time. A service that is away, as in a
        restart, is waited for up to `patience_seconds` before its error is raised.
        """
        patience = Patience(patience_seconds)
        return self._run(
            operations.wait(job_id, poll_seconds, timeout_seconds, on_progress, patience)
        )

    def download(
        self,
        job_id: str,
        folder: Path | str,
        *,
        on_bytes: Callable[[Artifact, int], None] | None = None,
    ) -> list[Path]:
        """Download every file of a job into `folder`, and check each against its digest.

        A download that was cut goes on where it ended; a file that is there already is not
        fetched again. `on_bytes` gets each artifact with the bytes of it that are here so far.

        Raises:
            CorruptedDownloadError: a file came over as something else than promised.
        """
        return self._run(operations.download(job_id, Path(folder), on_bytes))

    def download_archive(self, job_id: str, target: Path | str) -> Path:
        """Download all files of a job as one tar file; `download` resumes and checks each file."""
        return self._run(operations.download_archive(job_id, Path(target)))

    def _ask(self, call: Call[Value]) -> Value:
        return self._run(once(call))

    def _run(self, operation: Operation[Value]) -> Value:
        return Sender(self._http).run(operation)

    def _items(self, operation: Operation[None]) -> Iterator[Any]:
        return Sender(self._http).items(operation)
