"""The client: one method for each thing the service can do, and the two that take long."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic import BaseModel, ValidationError

from client.answers import require_success
from client.download import Download
from client.errors import ServiceError, UnexpectedAnswerError, UnreachableServiceError
from client.idempotency import key_header
from client.keys import bearer
from client.responses import (
    Artifact,
    Attempt,
    AuditEvent,
    Batch,
    Delivery,
    Estimate,
    Event,
    Expiries,
    Job,
    Key,
    LogLine,
    LogPage,
    Me,
    NewKey,
    Page,
    Progress,
    Readiness,
    Webhook,
    Worker,
)
from client.tries import Patience, pauses
from client.watch import JobWatch

_log = logging.getLogger(__name__)

DEFAULT_URL = "http://127.0.0.1:8000"
PAGE_ITEMS = 200
LOG_LINES = 1000
LONGEST_WAIT_SECONDS = 60.0
"""That a service waits for news."""

_LOG_WAIT_SECONDS = 30.0
_SECONDS_BETWEEN_LOOKS = 1.0
"""At least, where a service does not wait, as one that stops."""

LOOPBACK = {"localhost", "127.0.0.1", "::1"}

_TRIES = 5
"""Of a submission, before giving up."""

_PASSING = {429, 502, 503, 504}
"""Statuses of a service that is away for a while or has had enough of us, or of what stands before
it."""

_LONGEST_PAUSE_SECONDS = 60
"""A service that is away for longer is not waited for."""

Response = TypeVar("Response", bound=BaseModel)


class Client:
    """The service at an address. Use it in a `with` block, or close it.

    Every method raises ServiceError when the service answers with a problem, and
    UnreachableServiceError when there is no answer.
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
        self.base_url = (base_url or os.environ.get("BONSAI_URL") or DEFAULT_URL).rstrip("/")
        # A proxy for the world outside must not get what is meant for this machine.
        self._timeout_seconds = timeout_seconds
        proxied = urlsplit(self.base_url).hostname not in LOOPBACK
        try:
            self._http = httpx.Client(
                base_url=self.base_url,
                headers=bearer(api_key or os.environ.get("BONSAI_API_KEY")),
                timeout=timeout_seconds,
                trust_env=proxied,
            )
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
        return self._submit(Job, "/v1/jobs", content, idempotency_key)

    def validate(self, request: Mapping[str, Any] | None = None, /, **fields: Any) -> Estimate:
        """Have a job checked as `submit` would, and hear what it would take; nothing is stored."""
        content = {**(request or {}), **fields}
        dry = {"validate_only": True}
        return self._ask(Estimate, "POST", "/v1/jobs", json=content, params=dry)

    def submit_batch(
        self, request: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> Batch:
        """Submit many jobs, all or none: `jobs`, or a `template` with `models`, `sparsities`.

        Tried again as `submit`.
        """
        return self._submit(Batch, "/v1/batches", dict(request), idempotency_key)

    def batch(self, batch_id: str) -> Batch:
        """How the jobs of a batch fare."""
        return self._ask(Batch, "GET", _batch(batch_id))

    def cancel_batch(self, batch_id: str) -> Batch:
        """Ask every job of a batch to end that has not."""
        return self._ask(Batch, "POST", f"{_batch(batch_id)}/cancel")

    def job(self, job_id: str, *, wait_seconds: float = 0.0, state: str | None = None) -> Job:
        """One job as it is now; with `wait_seconds`, as soon as it is in another state than `state`
        (default: the one that it is in), or has ended, or the time is over."""
        if not wait_seconds:
            return self._ask(Job, "GET", _job(job_id))
        query = {"wait": wait_seconds} | ({"state": state} if state else {})
        timeout = self._timeout(wait_seconds)
        return self._ask(Job, "GET", _job(job_id), params=query, timeout=timeout)

    def jobs(self, *, state: str | None = None) -> Iterator[Job]:
        """All jobs, newest first, fetched page by page as they are asked for."""
        yield from self._pages(Job, "/v1/jobs", {"state": state} if state else {})

    def events(self, job_id: str) -> Iterator[Event]:
        """All that has happened to a job so far, oldest first."""
        yield from self._pages(Event, f"{_job(job_id)}/events", {})

    def watch(
        self, job_id: str, *, after: int = 0, patience_seconds: float = 120.0
    ) -> Iterator[Event | Progress]:
        """Events as they happen, after those up to sequence `after`, and progress as it changes, to
        the job's end.

        A connection that breaks is made again, and nothing is missed or said twice; where no stream
        comes through, the service is asked in a way that makes it wait. One that is away, as in a
        restart, is waited for up to `patience_seconds` before its error is raised.
        """
        patience = Patience(patience_seconds)
        yield from JobWatch(self._http, self._ask, _job(job_id), after, patience)

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
        attempt = attempt or self.job(job_id).attempts
        if not attempt:
            return
        path = f"{_job(job_id)}/attempts/{attempt}/logs"
        wait = _LOG_WAIT_SECONDS if follow else 0.0
        patience = Patience(patience_seconds if follow else 0.0)
        query: dict[str, Any] = {"limit": LOG_LINES} | ({"tail": tail} if tail else {})
        while True:
            began = time.monotonic()
            try:
                page = self._ask(LogPage, "GET", path, params=query, timeout=self._timeout(wait))
            except (UnreachableServiceError, ServiceError) as error:
                patience.bear(error)
                continue
            patience.answered()
            yield from page.items
            if page.next_cursor is None and (page.ended or not follow):
                return
            if "wait" in query and not page.items:
                _rest(began)
            query = {"limit": LOG_LINES, "cursor": page.last_cursor, "wait": wait}

    def artifacts(self, job_id: str) -> list[Artifact]:
        """The published files of a job; none before it has succeeded."""
        return list(self._pages(Artifact, f"{_job(job_id)}/artifacts", {}))

    def attempts(self, job_id: str) -> list[Attempt]:
        """The workers' holds on a job, the first one first."""
        return list(self._pages(Attempt, f"{_job(job_id)}/attempts", {}))

    def pause(self, job_id: str) -> Job:
        """Ask a job to wait; a running one does so after the forward pass in flight."""
        return self._ask(Job, "POST", f"{_job(job_id)}/pause")

    def resume(self, job_id: str) -> Job:
        """Let a paused job go on from what it has evaluated."""
        return self._ask(Job, "POST", f"{_job(job_id)}/resume")

    def retry(self, job_id: str) -> Job:
        """A new job that goes on from what a failed or cancelled one has evaluated."""
        return self._ask(Job, "POST", f"{_job(job_id)}/retry")

    def cancel(self, job_id: str) -> Job:
        """Ask a job to end; a running one does so after the forward pass in flight."""
        return self._ask(Job, "POST", f"{_job(job_id)}/cancel")

    def readiness(self) -> Readiness:
        """What does not work of a service that takes jobs; ServiceError when it takes none."""
        return self._ask(Readiness, "GET", "/readyz")

    def workers(self) -> list[Worker]:
        """The workers that run, and those lost lately."""
        return list(self._pages(Worker, "/v1/workers", {}))

    def drain(self, name: str) -> Worker:
        """Have a worker give its job back and stop."""
        return self._ask(Worker, "POST", f"/v1/workers/{quote(name, safe='')}/drain")

    def pin(self, job_id: str, *, pinned: bool = True) -> Job:
        """Keep the files of a job whatever its age, or no longer."""
        return self._ask(Job, "POST", f"{_job(job_id)}/{'pin' if pinned else 'unpin'}")

    def collect(self, *, dry_run: bool = False) -> Expiries:
        """Announce the end of files that are not kept any longer, and remove those announced
        before; with `dry_run`, only tell which."""
        return self._ask(Expiries, "POST", "/v1/gc", params={"dry_run": dry_run})

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
        wanted = {"url": url, "events": events, "owner": owner, "name": name}
        said = {key: value for key, value in wanted.items() if value is not None}
        return self._ask(Webhook, "POST", "/v1/webhooks", json=said)

    def webhooks(self) -> Iterator[Webhook]:
        """All webhooks, newest first."""
        yield from self._pages(Webhook, "/v1/webhooks", {})

    def webhook(self, webhook_id: str) -> Webhook:
        """One webhook as it is now."""
        return self._ask(Webhook, "GET", _webhook(webhook_id))

    def update_webhook(self, webhook_id: str, **changes: Any) -> Webhook:
        """Change `url`, `events`, `name` or `enabled`."""
        return self._ask(Webhook, "PATCH", _webhook(webhook_id), json=changes)

    def delete_webhook(self, webhook_id: str) -> None:
        """Remove a webhook with its log."""
        self._send("DELETE", _webhook(webhook_id))

    def test_webhook(self, webhook_id: str) -> Delivery:
        """Queue a message that says nothing; `delivery` tells how that went."""
        return self._ask(Delivery, "POST", f"{_webhook(webhook_id)}/test")

    def rotate_webhook_secret(self, webhook_id: str) -> Webhook:
        """Give a webhook another secret, which is in the answer; for a while both sign."""
        return self._ask(Webhook, "POST", f"{_webhook(webhook_id)}/rotate-secret")

    def deliveries(self, webhook_id: str) -> Iterator[Delivery]:
        """What was and will be sent to a webhook, newest first."""
        yield from self._pages(Delivery, f"{_webhook(webhook_id)}/deliveries", {})

    def delivery(self, webhook_id: str, delivery_id: str) -> Delivery:
        """One delivery as it is now."""
        return self._ask(Delivery, "GET", _delivery(webhook_id, delivery_id))

    def replay(self, webhook_id: str, delivery_id: str) -> Delivery:
        """Send a delivery now, whatever has become of it."""
        return self._ask(Delivery, "POST", f"{_delivery(webhook_id, delivery_id)}/replay")

    def me(self) -> Me:
        """Whom the service takes us for."""
        return self._ask(Me, "GET", "/v1/me")

    def keys(self) -> list[Key]:
        """All API keys, newest first; for admins."""
        return list(self._pages(Key, "/v1/keys", {}))

    def key(self, key_id: str) -> Key:
        """One API key; for admins."""
        return self._ask(Key, "GET", _key(key_id))

    def create_key(
        self,
        name: str,
        role: str,
        *,
        owner: str = "default",
        expires_at: datetime | None = None,
    ) -> NewKey:
        """Make an API key; the only time that its text is seen. For admins."""
        said = {"name": name, "role": role, "owner": owner}
        expiry = {"expires_at": expires_at.isoformat()} if expires_at else {}
        return self._ask(NewKey, "POST", "/v1/keys", json=said | expiry)

    def rotate_key(self, key_id: str, *, grace_seconds: int | None = None) -> NewKey:
        """Give an API key another text; the one before stays valid for so long (default: a day).
        For admins."""
        said = {} if grace_seconds is None else {"grace_seconds": grace_seconds}
        return self._ask(NewKey, "POST", f"{_key(key_id)}/rotate", json=said)

    def revoke_key(self, key_id: str) -> Key:
        """End an API key at once; for admins."""
        return self._ask(Key, "POST", f"{_key(key_id)}/revoke")

    def audit(self) -> Iterator[AuditEvent]:
        """What was done through the API, newest first; for admins."""
        yield from self._pages(AuditEvent, "/v1/audit", {})

    def wait(
        self,
        job_id: str,
        *,
        poll_seconds: float = 30.0,
        on_progress: Callable[[Job], None] | None = None,
        patience_seconds: float = 120.0,
    ) -> Job:
        """Wait until a job has come to its end, however it ends.

        The service answers when the job's state has changed, and after `poll_seconds` (60 at most)
        at the latest; `on_progress` gets the job each time. A service that is away, as in a
        restart, is waited for up to `patience_seconds` before its error is raised.
        """
        wait_seconds = min(poll_seconds, LONGEST_WAIT_SECONDS)
        patience = Patience(patience_seconds)
        state: str | None = None
        while True:
            began = time.monotonic()
            try:
                job = self.job(job_id, wait_seconds=wait_seconds if state else 0, state=state)
            except (UnreachableServiceError, ServiceError) as error:
                patience.bear(error)
                continue
            patience.answered()
            if on_progress is not None:
                on_progress(job)
            if job.is_final:
                return job
            if job.state == state and wait_seconds >= _SECONDS_BETWEEN_LOOKS:
                _rest(began)
            state = job.state

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
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for artifact in self.artifacts(job_id):
            path = f"{_job(job_id)}/artifacts/{quote(artifact.name)}"
            download = Download(self._http, path, artifact, folder, on_bytes)
            paths.append(download.run())
        return paths

    def _timeout(self, wait_seconds: float) -> httpx.Timeout:
        """Of a request with which the service waits for so long."""
        return httpx.Timeout(self._timeout_seconds, read=self._timeout_seconds + wait_seconds)

    def _pages(self, model: type[Response], path: str, query: dict[str, str]) -> Iterator[Response]:
        cursor: str | None = None
        while True:
            parameters = {**query, "limit": PAGE_ITEMS} | ({"cursor": cursor} if cursor else {})
            page = self._ask(Page, "GET", path, params=parameters)
            for item in page.items:
                yield self._understood(model, item)
            cursor = page.next_cursor
            if cursor is None:
                return

    def _submit(
        self, model: type[Response], path: str, content: Mapping[str, Any], key: str | None
    ) -> Response:
        headers = key_header(key)
        left = pauses(_TRIES)
        while True:
            try:
                return self._ask(model, "POST", path, json=content, headers=headers)
            except (UnreachableServiceError, ServiceError) as error:
                pause, wanted = next(left, None), _seconds_until_again(error)
                if pause is None or wanted is None:
                    raise
                pause = max(pause, wanted)
                _log.warning("%s is away, trying again in %g s", self.base_url, pause)
                time.sleep(pause)

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **content)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise UnreachableServiceError(self.base_url, error) from error
        require_success(response)
        return response

    def _ask(self, model: type[Response], method: str, path: str, **content: Any) -> Response:
        response = self._send(method, path, **content)
        try:
            return self._understood(model, response.json())
        except ValueError as error:
            raise UnexpectedAnswerError(self.base_url, "its body is not JSON") from error

    def _understood(self, model: type[Response], content: Any) -> Response:
        try:
            return model.model_validate(content)
        except ValidationError as error:
            raise UnexpectedAnswerError(self.base_url, str(error)) from error


def _rest(began: float) -> None:
    """Until the next look, where the service has not waited."""
    time.sleep(max(0.0, began + _SECONDS_BETWEEN_LOOKS - time.monotonic()))


def _seconds_until_again(error: UnreachableServiceError | ServiceError) -> float | None:
    """How long to wait at least before the same request; None where it would end the same."""
    if isinstance(error, UnreachableServiceError):
        never = isinstance(error.reason, httpx.UnsupportedProtocol | httpx.InvalidURL)
        return None if never else 0
    wanted = error.retry_after_seconds or 0
    passing = error.problem.status in _PASSING and wanted <= _LONGEST_PAUSE_SECONDS
    return wanted if passing else None


def _key(key_id: str) -> str:
    return f"/v1/keys/{quote(key_id, safe='')}"


def _batch(batch_id: str) -> str:
    return f"/v1/batches/{quote(batch_id, safe='')}"


def _job(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _webhook(webhook_id: str) -> str:
    return f"/v1/webhooks/{quote(webhook_id, safe='')}"


def _delivery(webhook_id: str, delivery_id: str) -> str:
    return f"{_webhook(webhook_id)}/deliveries/{quote(delivery_id, safe='')}"
