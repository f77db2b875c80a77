"""What goes over the wire, apart from problems; never a table."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote
from uuid import UUID

from pydantic import ConfigDict, Field

from api.wire import Wire as _Wire
from jobs import log_lines, records, store, webhooks
from jobs.collector import Expiry, Why
from jobs.deliveries import DeliveryState, WebhookEvent, state_of
from jobs.devices import DeviceKind
from jobs.keys import KeyAccount
from jobs.progress import Progress
from jobs.queue import Place
from jobs.request import JobRequest, Target
from jobs.roles import Role
from jobs.schedule import Priority, WaitingReason
from jobs.states import JobState
from jobs.tokens import Token
from jobs.workers import Presence, WorkerAccount


class JobLinks(_Wire):
    """Where the rest about a job is, and what may be asked of it; paths of this service."""

    self: str
    """The job itself (GET)."""

    events: str
    """What has happened to it (GET)."""

    attempts: str
    """Which workers have held it, and why each let go (GET)."""

    artifacts: str
    """The files it has published (GET)."""

    pause: str
    """To pause it (POST)."""

    resume: str
    """To let it go on (POST)."""

    cancel: str
    """To cancel it (POST)."""

    retry: str
    """To have another job go on from what it has evaluated (POST)."""

    pin: str
    """To keep its files whatever its age (POST)."""

    unpin: str
    """To let them expire (POST)."""


class Job(_Wire):
    """A pruning job."""

    id: UUID
    name: str | None
    labels: dict[str, str]
    metadata: dict[str, Any]
    owner: str
    priority: Priority
    """As it is now; `request` has the one that it was submitted with."""

    state: JobState
    waiting_reason: WaitingReason | None
    """Why a free worker would not take the queued job; null: it would."""

    position: int | None
    """Place in the queue, from 1; null for a job that is not queued, or waits for a reason."""

    created_at: datetime
    started_at: datetime | None
    """When a worker first took it."""

    finished_at: datetime | None
    """When it came to its final state."""

    batch_id: UUID | None
    """The batch that it was submitted with, or the job that it retries."""

    retry_of: UUID | None
    """The job from whose evaluated masks this one goes on."""

    pinned: bool
    """Whether its files are kept whatever its age."""

    expires_at: datetime | None
    """When its files and its ledger go, once that is announced."""

    expired_at: datetime | None
    """When they went."""

    attempts: int
    """How often a worker has taken it; more than one after a crash or a lost worker."""

    request: JobRequest
    """What was asked, with every default written out."""

    progress: Progress
    error: dict[str, Any] | None
    """Why it failed: at least `code` and `detail`."""

    result: dict[str, Any] | None
    """What came of it, once succeeded; the report among the artifacts says more."""

    links: JobLinks

    @classmethod
    def of(cls, row: records.Job, place: Place | None = None) -> Self:
        """The job of a row, and where it stands in the queue."""
        path = job_path(row.id)
        return cls(
            id=row.id,
            name=row.name,
            labels=row.labels,
            metadata=row.metadata_,
            owner=row.owner,
            priority=Priority.of(row.priority),
            waiting_reason=place and place.reason,
            position=place and place.position,
            state=JobState(row.state),
            created_at=row.created_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
            batch_id=row.batch_id,
            retry_of=row.retry_of,
            pinned=row.pinned,
            expires_at=row.expires_at,
            expired_at=row.expired_at,
            attempts=row.attempts,
            request=JobRequest.model_validate(row.request),
            progress=Progress.model_validate(row.progress),
            error=row.error,
            result=row.result,
            links=JobLinks(
                self=path,
                **{name: f"{path}/{name}" for name in JobLinks.model_fields if name != "self"},
            ),
        )


class JobPage(_Wire):
    """Some jobs, in the order asked for."""

    items: list[Job]
    next_cursor: str | None
    """Pass it as `cursor` for the jobs that follow; null on the last page."""

    @classmethod
    def of(cls, page: store.JobPage, places: Mapping[UUID, Place]) -> Self:
        """The page of some rows."""
        items = [Job.of(row, places.get(row.id)) for row in page.items]
        return cls(items=items, next_cursor=page.next_cursor)


class BatchLinks(_Wire):
    """Where the batch is, and how to cancel it; paths of this service."""

    self: str
    """The batch (GET)."""

    cancel: str
    """To cancel all its jobs (POST)."""


class BatchJob(_Wire):
    """A job in the report of its batch; its own page says more."""

    id: UUID
    name: str | None
    state: JobState
    model: str
    """Source of the model."""

    target: Target
    sparsity: float
    """Share of the parameters removed so far."""

    error: dict[str, Any] | None
    """Why it failed: at least `code` and `detail`."""

    result: dict[str, Any] | None
    links: JobLinks


class Batch(_Wire):
    """Jobs that were submitted together, and how they fared."""

    id: UUID
    name: str | None
    created_at: datetime
    counts: dict[JobState, int]
    """Jobs by state; states without jobs are left out."""

    finished: bool
    """Whether every job has come to its end."""

    jobs: list[BatchJob]
    """In the order of the request; a retry comes last."""

    links: BatchLinks

    @classmethod
    def of(cls, row: records.Batch, jobs: Iterable[records.Job]) -> Self:
        """The batch of a row and its jobs."""
        shown = [_in_batch(Job.of(job)) for job in jobs]
        path = f"/v1/batches/{row.id}"
        return cls(
            id=row.id,
            name=row.name,
            created_at=row.created_at,
            counts=dict(Counter(job.state for job in shown)),
            finished=all(job.state.is_final for job in shown),
            jobs=shown,
            links=BatchLinks(self=path, cancel=f"{path}/cancel"),
        )


class BatchSummary(_Wire):
    """A batch in a list; its own page has its jobs."""

    id: UUID
    name: str | None
    created_at: datetime
    counts: dict[JobState, int]
    """Jobs by state; states without jobs are left out."""

    finished: bool
    """Whether every job has come to its end."""

    links: BatchLinks

    @classmethod
    def of(cls, row: records.Batch, counts: Mapping[JobState, int]) -> Self:
        """The batch of a row."""
        path = f"/v1/batches/{row.id}"
        return cls(
            id=row.id,
            name=row.name,
            created_at=row.created_at,
            counts=dict(counts),
            finished=all(state.is_final for state in counts),
            links=BatchLinks(self=path, cancel=f"{path}/cancel"),
        )


class BatchPage(_Wire):
    """Some batches, newest first."""

    items: list[BatchSummary]
    next_cursor: str | None
    """Pass it as `cursor` for the batches that follow; null on the last page."""

    @classmethod
    def of(cls, page: store.BatchPage) -> Self:
        """The page of some rows."""
        items = [BatchSummary.of(row, counts) for row, counts in page.items]
        return cls(items=items, next_cursor=page.next_cursor)


def _in_batch(job: Job) -> BatchJob:
    return BatchJob(
        id=job.id,
        name=job.name,
        state=job.state,
        model=job.request.model.source,
        target=job.request.target,
        sparsity=job.progress.sparsity,
        error=job.error,
        result=job.result,
        links=job.links,
    )


class Event(_Wire):
    """Something that happened to a job."""

    sequence: int
    """Counts from 1 without gaps."""

    at: datetime
    type: str
    """`submitted`, a state the job came to, or what a worker had to tell."""

    data: dict[str, Any]


class EventPage(_Wire):
    """Some events of a job, oldest first."""

    items: list[Event]
    next_cursor: str | None
    """Pass it as `cursor` for the events that follow; null when there is none yet."""

    last_cursor: str
    """Pass it as `cursor`, with `wait`, for the events that follow, be there some yet or not."""

    job_state: JobState
    """The job's state. Once it is final, and `next_cursor` null, the job has come to its end: later
    events are about its files, and are not waited for."""

    @classmethod
    def of(cls, page: store.EventPage) -> Self:
        """The page of some rows."""
        return cls.model_validate(page)


class StreamEnd(_Wire):
    """The last message of a stream of events."""

    state: JobState
    """The final state that the job has come to."""


class LogLine(_Wire):
    """A line of an attempt's log."""

    number: int
    """From 1. Lines in the middle of a long log are left out: one stands for them, and says so."""

    at: datetime
    """When it was stored, within a second or two of being written."""

    text: str
    """Without its end; the service's own lines are JSON objects."""


class LogPage(_Wire):
    """Some lines of an attempt's log, oldest first."""

    items: list[LogLine]
    next_cursor: str | None
    """Pass it as `cursor` for the lines that follow; null when there is none yet."""

    last_cursor: str
    """Pass it as `cursor`, with `wait`, for the lines that follow, be there some yet or not."""

    ended: bool
    """Whether the attempt has ended: then no more lines are waited for."""

    @classmethod
    def of(cls, page: log_lines.LogPage) -> Self:
        """The page of some rows."""
        return cls.model_validate(page)


class Mask(_Wire):
    """An evaluated sub-model, by its place."""

    round: int
    """From 1."""

    trial: int
    """From 0."""


class AttemptLinks(_Wire):
    """Where the rest about an attempt is; a path of this service."""

    logs: str
    """What its process has said (GET)."""


class Attempt(_Wire):
    """One worker's hold on a job, from claim to end."""

    number: int
    """From 1."""

    fencing_token: int
    """Grows with every claim of any job; every write of the attempt names it."""

    worker: str
    device: str
    started_at: datetime
    ended_at: datetime | None
    """Null while it holds the job."""

    outcome: str | None
    """Why it ended: `succeeded`, `failed`, `paused`, `cancelled`, `drained`, `window_closed`,
    `crashed`, `stalled`, `host_out_of_memory`, `disk_full`, `storage_unavailable` or
    `lease_expired`."""

    masks_evaluated: int
    last_mask: Mask | None
    """The last sub-model it evaluated."""

    links: AttemptLinks

    @classmethod
    def of(cls, account: store.AttemptAccount) -> Self:
        """The attempt of a row."""
        row, last = account.attempt, account.last_mask
        return cls(
            number=row.number,
            fencing_token=row.fencing_token,
            worker=row.worker,
            device=row.device,
            started_at=row.started_at,
            ended_at=row.ended_at,
            outcome=row.outcome,
            masks_evaluated=row.masks_evaluated,
            last_mask=last and Mask(round=last[0], trial=last[1]),
            links=AttemptLinks(logs=f"{job_path(row.job_id)}/attempts/{row.number}/logs"),
        )


class AttemptPage(_Wire):
    """All attempts at a job, the first one first."""

    items: list[Attempt]
    next_cursor: None = None
    """Always null: a job has few attempts."""


class ArtifactLinks(_Wire):
    """Where the file is; a path of this service."""

    self: str
    """The file (GET, HEAD); Range and If-Range work."""

    link: str
    """A link to it in the store itself, where that has any (GET)."""


class Artifact(_Wire):
    """A published file of a succeeded job. What a name holds never changes."""

    name: str
    size_bytes: int
    sha256: str
    """Of the whole file, in hexadecimal digits; also its ETag."""

    content_type: str
    links: ArtifactLinks

    @classmethod
    def of(cls, row: records.Artifact) -> Self:
        """The artifact of a row."""
        path = artifact_path(row.job_id, row.name)
        return cls(
            name=row.name,
            size_bytes=row.size_bytes,
            sha256=row.sha256,
            content_type=row.content_type,
            links=ArtifactLinks(self=path, link=f"{path}/link"),
        )


class ArtifactLink(_Wire):
    """Where the store itself gives out a file."""

    url: str
    """For whoever has it; Range works."""

    expires_at: datetime
    """Until then it is good."""

    size_bytes: int
    sha256: str
    """Of the file, in hexadecimal digits, to check what came."""


class ArtifactPageLinks(_Wire):
    """Where the list is, and all of its files at once; paths of this service."""

    self: str
    """This list (GET)."""

    archive: str
    """All files in one tar archive (GET, HEAD); Range and If-Range work."""


class ArtifactPage(_Wire):
    """All files of a job, by name: its manifest."""

    items: list[Artifact]
    size_bytes: int
    """Of all files together."""

    links: ArtifactPageLinks
    next_cursor: None = None
    """Always null: a job has few files."""

    @classmethod
    def of(cls, job_id: UUID, rows: Iterable[records.Artifact]) -> Self:
        """The page of all rows."""
        items = [Artifact.of(row) for row in rows]
        path = job_path(job_id)
        return cls(
            items=items,
            size_bytes=sum(item.size_bytes for item in items),
            links=ArtifactPageLinks(self=f"{path}/artifacts", archive=f"{path}/archive"),
        )


class Worker(_Wire):
    """A process that runs jobs, one at a time."""

    name: str
    device: str
    """What it is, for people."""

    device_kind: DeviceKind
    memory_bytes: int | None
    """That jobs may take of the device; null: not known."""

    free_bytes: int | None
    """Of these, what nobody else held when it last looked for a job."""

    compute_capability: str | None
    """Of a CUDA device."""

    presence: Presence
    """`idle`; `busy` with a job; `device_failed`: takes none until its device computes again;
    `draining`: told to leave; `lost`: not heard of for too long."""

    job_id: UUID | None
    """The job that it has."""

    started_at: datetime
    seen_at: datetime
    """When it was last heard of."""

    @classmethod
    def of(cls, account: WorkerAccount) -> Self:
        """The worker of a row."""
        row = account.worker
        return cls(
            name=row.name,
            device=row.device,
            device_kind=DeviceKind(row.device_kind),
            memory_bytes=row.memory_bytes,
            free_bytes=row.free_bytes,
            compute_capability=row.compute_capability,
            presence=account.presence,
            job_id=account.job_id,
            started_at=row.started_at,
            seen_at=row.seen_at,
        )


class WorkerPage(_Wire):
    """All workers, by name."""

    items: list[Worker]
    next_cursor: None = None
    """The list is whole."""

    @classmethod
    def of(cls, accounts: Iterable[WorkerAccount]) -> Self:
        """The page of all accounts."""
        return cls(items=[Worker.of(account) for account in accounts])


class ExpiryItem(_Wire):
    """A job whose files and ledger are not kept any longer."""

    job_id: UUID
    name: str | None
    owner: str
    finished_at: datetime
    why: Why
    """`age`: it ended too long ago; `count`: too many of its owner's jobs ended after it."""

    due_at: datetime | None
    """When it goes; null: it is announced now."""

    size_bytes: int
    is_due: bool
    """Whether it goes now."""


class Expiries(_Wire):
    """What is not kept any longer, the oldest first."""

    items: list[ExpiryItem]
    size_bytes: int
    """Of those that go now."""

    @classmethod
    def of(cls, found: Iterable[Expiry]) -> Self:
        """The list of some."""
        items = [ExpiryItem.model_validate(expiry) for expiry in found]
        return cls(items=items, size_bytes=sum(item.size_bytes for item in items if item.is_due))


class WebhookLinks(_Wire):
    """Where the webhook is, and what may be asked of it; paths of this service."""

    self: str
    """The webhook (GET, PATCH, DELETE)."""

    deliveries: str
    """What was sent to it (GET)."""

    test: str
    """To send it a message that says nothing (POST)."""

    rotate_secret: str
    """To give it another secret (POST)."""


class Webhook(_Wire):
    """An address that hears what happens to the jobs of an owner."""

    id: UUID
    owner: str
    """Whose jobs are told of."""

    name: str | None
    url: str
    events: list[WebhookEvent]
    """What is told."""

    created_at: datetime
    enabled: bool
    disabled_reason: str | None
    """Why the service has disabled it; null: it has not."""

    failing_since: datetime | None
    """The first of the tries that have failed in a row; null: the last one arrived."""

    secret: str
    """That messages are signed with: whole (`whsec_` and base64) in the answer that has made it;
    after that its end."""

    previous_secret_until: datetime | None
    """Until then the secret before the last rotation signs too."""

    links: WebhookLinks

    @classmethod
    def of(cls, row: records.Webhook, *, reveal: bool = False) -> Self:
        """The webhook of a row; `reveal`: with its secret."""
        path = webhook_path(row.id)
        return cls(
            id=row.id,
            owner=row.owner,
            name=row.name,
            url=row.url,
            events=[WebhookEvent(event) for event in row.events],
            created_at=row.created_at,
            enabled=row.enabled,
            disabled_reason=row.disabled_reason,
            failing_since=row.failing_since,
            secret=row.secret if reveal else webhooks.masked(row.secret),
            previous_secret_until=row.previous_secret_until,
            links=WebhookLinks(
                self=path,
                deliveries=f"{path}/deliveries",
                test=f"{path}/test",
                rotate_secret=f"{path}/rotate-secret",
            ),
        )


class WebhookPage(_Wire):
    """Some webhooks, newest first."""

    items: list[Webhook]
    next_cursor: str | None
    """Pass it as `cursor` for those that follow; null on the last page."""


class DeliveryLinks(_Wire):
    """Where the delivery is, and what may be asked of it; paths of this service."""

    self: str
    """The delivery (GET)."""

    replay: str
    """To send it now (POST)."""


class Delivery(_Wire):
    """A message to a webhook, and how far it has come."""

    id: UUID
    """Also its `webhook-id` header, the same at every try."""

    event: str
    """One of the webhook's events, or `webhook.test`."""

    data: dict[str, Any]
    """What is told, as it was when the event happened."""

    created_at: datetime
    """When the event happened."""

    state: DeliveryState
    """`pending`: it waits for a try; `delivered`; `failed`: it is given up."""

    attempts: int
    """Tries so far."""

    tried_at: datetime | None
    """When the last one began."""

    next_try_at: datetime | None
    """When it is tried next; null: no more."""

    delivered_at: datetime | None
    last_status: int | None
    """HTTP status of the last answer; null: none came."""

    last_error: str | None
    """Why the last try failed."""

    last_response: str | None
    """The first 1000 bytes of the last answer's body."""

    links: DeliveryLinks

    @classmethod
    def of(cls, row: records.Delivery) -> Self:
        """The delivery of a row."""
        path = f"{webhook_path(row.webhook_id)}/deliveries/{row.id}"
        return cls(
            id=row.id,
            event=row.event,
            data=row.data,
            created_at=row.created_at,
            state=state_of(row),
            attempts=row.attempts,
            tried_at=row.tried_at,
            next_try_at=row.next_try_at,
            delivered_at=row.delivered_at,
            last_status=row.last_status,
            last_error=row.last_error,
            last_response=row.last_response,
            links=DeliveryLinks(self=path, replay=f"{path}/replay"),
        )


class DeliveryPage(_Wire):
    """Some deliveries of a webhook, newest first."""

    items: list[Delivery]
    next_cursor: str | None
    """Pass it as `cursor` for those that follow; null on the last page."""


class Key(_Wire):
    """An API key, without its secret."""

    id: str
    """Stands in the key itself, and may be shown to anybody."""

    name: str
    owner: str
    """The team it belongs to."""

    role: Role
    live: bool
    """Whether it opens anything now."""

    created_at: datetime
    created_by: str | None
    """Id of the key that has made it; null: a peer on this machine, when there was no key yet."""

    expires_at: datetime | None
    revoked_at: datetime | None
    previous_expires_at: datetime | None
    """When the secret before the last rotation ends."""

    last_used_at: datetime | None
    """To within a minute."""

    @classmethod
    def of(cls, account: KeyAccount, **more: Any) -> Self:
        """The key of a row."""
        row = {name: getattr(account.key, name, None) for name in Key.model_fields}
        return cls(**row | {"live": account.live} | more)


class NewKey(Key):
    """An API key with its secret."""

    key: str
    """The whole key, shown this once: `Authorization: Bearer` and this."""

    @classmethod
    def revealed(cls, account: KeyAccount, token: Token) -> Self:
        """A key that was made or rotated just now."""
        return cls.of(account, key=token.reveal())


class KeyPage(_Wire):
    """All keys, newest first."""

    items: list[Key]
    next_cursor: None = None
    """Always null: the list is whole."""

    @classmethod
    def of(cls, accounts: Iterable[KeyAccount]) -> Self:
        """The page of all accounts."""
        return cls(items=[Key.of(account) for account in accounts])


class Rotation(_Wire):
    """How a key is rotated: the body of POST /v1/keys/{key_id}/rotate, which may be left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    grace_seconds: Annotated[int, Field(strict=True, ge=0, le=90 * 86_400)] = 86_400
    """How long the secret that it had stays valid, in seconds; 0: not at all."""


class Me(_Wire):
    """Who the caller is."""

    key_id: str | None
    """Null: no key is needed yet."""

    key_name: str | None
    owner: str
    """Whose jobs it submits, where a request names no other."""

    role: Role
    sees_all_owners: bool
    """Whether jobs of other owners exist for it."""


class AuditEvent(_Wire):
    """Something that somebody has done."""

    at: datetime
    key_id: str | None
    """Null: a peer on this machine, when there was no key yet."""

    key_name: str | None
    owner: str
    """Of the key."""

    action: str
    """`create_key`, `rotate_key`, `revoke_key`, `submit`, `edit`, `pause`, `resume`, `cancel`,
    `retry`, `pin`, `unpin`, `drain`, `gc`, `upload_dataset` or `delete_dataset`; webhooks have
    theirs."""

    target: str | None
    """What it was done to, as in the paths: such as `jobs/` and its id."""

    request_id: str
    """The `X-Request-ID` of the response."""

    details: dict[str, Any]


class AuditPage(_Wire):
    """Some of what was done, newest first."""

    items: list[AuditEvent]
    next_cursor: str | None
    """Pass it as `cursor` for what was done before; null on the last page."""


class Health(_Wire):
    """The process lives."""

    status: Literal["alive"] = "alive"


class Shortcoming(_Wire):
    """A part of the service that does not do what it should, though jobs are taken."""

    part: Literal["broker", "schema", "storage", "workers"]
    meaning: str
    """What is wrong, what follows from it, and what to do."""


class Readiness(_Wire):
    """The service takes jobs."""

    status: Literal["ready", "degraded"]
    degraded: list[Shortcoming]
    """What is wrong; empty for `ready`."""

    broker: Literal["up", "down"]
    """Where workers hear of jobs at once."""

    schema_revision: str
    """Of the database's tables."""

    storage: Literal["up", "down"]
    """Where files of jobs go; looked at every ten seconds at most."""

    workers: int
    """That are there, busy or not."""

    @classmethod
    def of(cls, shortcomings: Mapping[str, str], *, revision: str, workers: int) -> Self:
        """By part, what is wrong with it."""
        return cls(
            status="degraded" if shortcomings else "ready",
            degraded=[
                Shortcoming.model_validate({"part": part, "meaning": meaning})
                for part, meaning in shortcomings.items()
            ],
            broker="down" if "broker" in shortcomings else "up",
            schema_revision=revision,
            storage="down" if "storage" in shortcomings else "up",
            workers=workers,
        )


def job_path(job_id: UUID) -> str:
    """The path of a job."""
    return f"/v1/jobs/{job_id}"


def webhook_path(webhook_id: UUID) -> str:
    """The path of a webhook."""
    return f"/v1/webhooks/{webhook_id}"


def artifact_path(job_id: UUID, name: str) -> str:
    """The path of a published file."""
    return f"{job_path(job_id)}/artifacts/{quote(name)}"
