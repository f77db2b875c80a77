"""What takes more than one request: lists, submissions tried again, waiting, logs, files."""

import base64
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from client import calls
from client.answers import require_success
from client.calls import path_of
from client.download import Download, sha256_of
from client.effects import Call, Item, Open, Operation, Pause, Piece, Upload, Work, as_model
from client.errors import ClientError, ServiceError, UnreachableServiceError
from client.idempotency import key_header
from client.responses import Artifact, Dataset, Job, LogPage, Page
from client.tries import Patience, pauses

_log = logging.getLogger("client.service")

PAGE_ITEMS = 200
LOG_LINES = 1000
LONGEST_WAIT_SECONDS = 60.0
"""That a service waits for news."""

TRIES = 5
"""Of a submission, before giving up."""

_LOG_WAIT_SECONDS = 30.0
_SECONDS_BETWEEN_LOOKS = 1.0
"""At least, where a service does not wait, as one that stops."""

_PASSING = {429, 502, 503, 504}
"""Statuses of a service that is away for a while or has had enough of us, or of what stands before
it."""

_LONGEST_PAUSE_SECONDS = 60
"""A service that is away for longer is not waited for."""

_MEDIA_TYPES = {".txt": "text/plain", ".jsonl": "application/jsonl"}

Value = TypeVar("Value")


def pages(model: type[Value], path: str, query: Mapping[str, Any] | None = None) -> Operation[None]:
    """The items of a list, fetched page by page as they are asked for."""
    parameters = {**(query or {}), "limit": PAGE_ITEMS}
    cursor: str | None = None
    while True:
        said = parameters | ({"cursor": cursor} if cursor else {})
        page: Page = yield Call(Page, "GET", path, {"params": said})
        for item in page.items:
            yield Item(as_model(model, item))
        cursor = page.next_cursor
        if cursor is None:
            return


def jobs(
    states: str | Sequence[str] | None,
    labels: Mapping[str, str] | None,
    moments: Mapping[str, datetime | None],
    **said: str | None,
) -> Operation[None]:
    """The jobs that pass all filters."""
    wanted: dict[str, Any] = {"state": [states] if isinstance(states, str) else states}
    wanted["label"] = [f"{key}={value}" for key, value in (labels or {}).items()]
    wanted |= {name: moment and moment.isoformat() for name, moment in moments.items()}
    query = {name: value for name, value in {**wanted, **said}.items() if value}
    return pages(Job, path_of("jobs"), query)


def submit(
    model: type[Value], path: str, content: Mapping[str, Any], key: str | None, url: str
) -> Operation[Value]:
    """A submission that makes one thing, however often it is sent."""
    call = Call(model, "POST", path, {"json": dict(content), "headers": key_header(key)})
    left = pauses(TRIES)
    while True:
        try:
            value: Value = yield call
        except (UnreachableServiceError, ServiceError) as error:
            pause, wanted = next(left, None), _seconds_until_again(error)
            if pause is None or wanted is None:
                raise
            pause = max(pause, wanted)
            _log.warning("%s is away, trying again in %g s", url, pause)
            yield Pause(pause)
        else:
            return value


def upload_dataset(path: Path, name: str | None, owner: str | None) -> Operation[Dataset]:
    """Sends a file, with its digest; the same file again is the same data set."""
    media_type = _MEDIA_TYPES.get(path.suffix.lower())
    if media_type is None:
        raise ClientError(
            f"{path}: the ending does not say what it holds; .txt (plain text) and .jsonl (an "
            "object with a text on each line) may be uploaded"
        )
    digest: bytes = yield Work(lambda: bytes.fromhex(sha256_of(path)))
    headers = {
        "Content-Type": media_type,
        "Content-Digest": f"sha-256=:{base64.b64encode(digest).decode()}:",
    }
    query = {"name": name or path.name, "owner": owner}
    said = {key: value for key, value in query.items() if value is not None}
    dataset: Dataset = yield Upload(Dataset, path_of("datasets"), path, headers, said)
    return dataset


def wait(
    job_id: str,
    poll_seconds: float,
    timeout_seconds: float | None,
    on_progress: Callable[[Job], None] | None,
    patience: Patience,
) -> Operation[Job]:
    """Asks in a way that makes the service wait, until the job has ended, or time is over."""
    end = math.inf if timeout_seconds is None else time.monotonic() + timeout_seconds
    state: str | None = None
    while True:
        began = time.monotonic()
        wait_seconds = max(0.0, min(poll_seconds, LONGEST_WAIT_SECONDS, end - began))
        try:
            job: Job = yield calls.job(job_id, wait_seconds if state else 0, state)
        except (UnreachableServiceError, ServiceError) as error:
            if time.monotonic() >= end:
                raise
            yield patience.bear(error)
            continue
        patience.answered()
        if on_progress is not None:
            on_progress(job)
        if job.is_final or time.monotonic() >= end:
            return job
        if job.state == state and wait_seconds >= _SECONDS_BETWEEN_LOOKS:
            yield _rest(began)
        state = job.state


def logs(
    job_id: str, attempt: int | None, tail: int | None, follow: bool, patience: Patience
) -> Operation[None]:
    """Lines of an attempt, of the last one if none is named."""
    if not attempt:
        job: Job = yield calls.job(job_id)
        attempt = job.attempts
    if not attempt:
        return
    path = path_of("jobs", job_id, "attempts", str(attempt), "logs")
    wait_seconds = _LOG_WAIT_SECONDS if follow else 0.0
    query: dict[str, Any] = {"limit": LOG_LINES} | ({"tail": tail} if tail else {})
    while True:
        began = time.monotonic()
        try:
            page: LogPage = yield Call(LogPage, "GET", path, {"params": query}, wait_seconds)
        except (UnreachableServiceError, ServiceError) as error:
            yield patience.bear(error)
            continue
        patience.answered()
        for line in page.items:
            yield Item(line)
        if page.next_cursor is None and (page.ended or not follow):
            return
        if "wait" in query and not page.items:
            yield _rest(began)
        query = {"limit": LOG_LINES, "cursor": page.last_cursor, "wait": wait_seconds}


def download(
    job_id: str, folder: Path, on_bytes: Callable[[Artifact, int], None] | None
) -> Operation[list[Path]]:
    """Every file of a job, one after the other."""
    yield Work(lambda: folder.mkdir(parents=True, exist_ok=True))
    path = path_of("jobs", job_id, "artifacts")
    page: Page = yield Call(Page, "GET", path)
    paths = []
    for item in page.items:
        artifact = as_model(Artifact, item)
        file = f"{path}/{quote(artifact.name)}"
        paths.append((yield from Download(file, artifact, folder, on_bytes).run()))
    return paths


def download_archive(job_id: str, target: Path) -> Operation[Path]:
    """All files of a job in one tar file, which is there whole or not at all."""
    part = target.with_name(f"{target.name}.part")
    whole = {"Accept-Encoding": "identity"}
    response: httpx.Response = yield Open(path_of("jobs", job_id, "archive"), whole)
    require_success(response)
    with part.open("wb") as file:
        # A body that ends early is an error of the connection.
        while (piece := (yield Piece())) is not None:
            file.write(piece)
    yield Work(lambda: part.replace(target))
    return target


def download_dataset(dataset_id: str, folder: Path) -> Operation[Path]:
    """The text of a data set, as any file comes."""
    dataset: Dataset = yield calls.dataset(dataset_id)
    suffix = next(each for each, kind in _MEDIA_TYPES.items() if kind == dataset.media_type)
    file = Artifact(
        name=f"{dataset.id}{suffix}", size_bytes=dataset.size_bytes, sha256=dataset.sha256
    )
    path = path_of("datasets", dataset_id, "content")
    return (yield from Download(path, file, folder, None).run())


def _rest(began: float) -> Pause:
    """Until the next look, where the service has not waited."""
    return Pause(max(0.0, began + _SECONDS_BETWEEN_LOOKS - time.monotonic()))


def _seconds_until_again(error: UnreachableServiceError | ServiceError) -> float | None:
    """How long to wait at least before the same request; None where it would end the same."""
    if isinstance(error, UnreachableServiceError):
        never = isinstance(error.reason, httpx.UnsupportedProtocol | httpx.InvalidURL)
        return None if never else 0
    wanted = error.retry_after_seconds or 0
    passing = error.problem.status in _PASSING and wanted <= _LONGEST_PAUSE_SECONDS
    return wanted if passing else None
