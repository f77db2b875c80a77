"""The tables. Times are the database's, in UTC; JSON columns hold what the API shows as it is."""

from collections.abc import Iterable
from datetime import datetime, time
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Sequence,
    SmallInteger,
    String,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from jobs.roles import Role
from jobs.schedule import Priority
from jobs.states import JobState

Json = dict[str, Any]


class Base(DeclarativeBase):
    """Root of the tables."""

    type_annotation_map = {Json: JSONB, datetime: DateTime(timezone=True)}  # noqa: RUF012


FENCING_TOKEN = Sequence("fencing_token", metadata=Base.metadata, data_type=BigInteger)
"""Grows with every claim of any job, for ever."""


def _listed(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in values)


_HELD = f"state IN ({_listed(state for state in JobState if state.is_held)})"


class Batch(Base):
    """Jobs that were submitted together."""

    __tablename__ = "batches"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Job(Base):
    """One pruning job: what was asked, where it stands, who holds it."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(f"state IN ({_listed(JobState)})", name="jobs_state_known"),
        CheckConstraint(
            f"({_HELD}) = (fencing_token IS NOT NULL AND lease_expires_at IS NOT NULL)",
            name="jobs_held_by_lease",
        ),
        Index("jobs_by_age", "created_at", "id"),
        Index("jobs_by_end", "finished_at", "id", postgresql_where="finished_at IS NOT NULL"),
        Index("jobs_by_state", "state"),
        Index("jobs_of_owner", "owner", "created_at", "id"),
        Index("jobs_by_name", "name", postgresql_where="name IS NOT NULL"),
        Index("jobs_by_label", "labels", postgresql_using="gin"),
        Index("jobs_by_model", text("(request #>> '{model,source}')")),
        Index("jobs_queued", "priority", "created_at", "id", postgresql_where="state = 'queued'"),
        Index("jobs_held", "owner", postgresql_where=_HELD),
        Index("jobs_due", "deadline", postgresql_where="finished_at IS NULL"),
        Index(
            "jobs_of_batch",
            "batch_id",
            "created_at",
            "id",
            postgresql_where="batch_id IS NOT NULL",
        ),
        Index("jobs_dependent", "after", postgresql_where="after IS NOT NULL"),
        Index(
            "jobs_kept",
            "owner",
            "finished_at",
            postgresql_where="finished_at IS NOT NULL AND expired_at IS NULL",
        ),
        Index("jobs_of_dataset", "dataset_id", postgresql_where="dataset_id IS NOT NULL"),
        Index("jobs_leased", "lease_expires_at", postgresql_where=_HELD),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str | None]
    labels: Mapped[Json]
    metadata_: Mapped[Json] = mapped_column("metadata", server_default="{}")
    """Free, and read by nobody here."""
    request: Mapped[Json]
    """What was asked, `jobs.request.JobRequest`, with every default written out."""
    state: Mapped[str] = mapped_column(String(16), default=JobState.QUEUED)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    queued_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When it last came to the queue."""
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    batch_id: Mapped[UUID | None] = mapped_column(ForeignKey("batches.id"))
    owner: Mapped[str] = mapped_column(default="default")
    priority: Mapped[int] = mapped_column(SmallInteger, default=Priority.NORMAL.level)
    not_before: Mapped[datetime | None]
    deadline: Mapped[datetime | None]
    after: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    window_opens: Mapped[time | None]
    window_closes: Mapped[time | None]
    window_zone: Mapped[str | None]
    window_days: Mapped[list[int] | None] = mapped_column(ARRAY(SmallInteger))
    window_finish: Mapped[bool] = mapped_column(default=False)
    """Whether a job that runs when its window closes may run to its end."""
    device_kind: Mapped[str | None]
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """That must be free on its device for the whole model."""
    streamed_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """That are enough on a CUDA device where no worker has one for the whole model."""
    held_until: Mapped[datetime | None]
    """Until then no worker takes it, for the reason beside."""
    hold_reason: Mapped[str | None]
    retry_of: Mapped[UUID | None] = mapped_column(
        ForeignKey("jobs.id", ondelete="SET NULL"), unique=True
    )
    """The job from whose ledger this one goes on; no job is retried twice."""
    dataset_id: Mapped[UUID | None] = mapped_column(ForeignKey("datasets.id", ondelete="SET NULL"))
    """The uploaded text that it calibrates on, while that exists."""
    pinned: Mapped[bool] = mapped_column(server_default="false")
    """Whether its files are kept whatever its age."""
    expires_at: Mapped[datetime | None]
    """When its files go, once that is announced."""
    expired_at: Mapped[datetime | None]
    """When they went."""
    fencing_token: Mapped[int | None] = mapped_column(BigInteger)
    """Names the attempt that holds the job; every write of an attempt must match it."""
    lease_expires_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    crashes: Mapped[int] = mapped_column(default=0)
    """Crashes of the child process in a row without a newly evaluated mask between them."""
    progress: Mapped[Json] = mapped_column(default=dict)
    progress_at: Mapped[datetime | None]
    """When a mask was last evaluated: the second watermark beside the lease."""
    error: Mapped[Json | None]
    result: Mapped[Json | None]
    traceparent: Mapped[str | None]
    """Names the span of its submission, as in W3C Trace Context; None where nothing is traced."""
    fingerprint: Mapped[str | None]
    """Digest of the inputs the ledger belongs to, set by the first attempt that reads them."""
    last_event: Mapped[int] = mapped_column(default=0)


class IdempotencyKey(Base):
    """A key by which a client names a submission that it may make again."""

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(primary_key=True)
    """Of whoever has sent it: owners have keys of their own."""
    resource: Mapped[str] = mapped_column(primary_key=True)
    """What it makes, `job` or `batch`; a key may do so once in each."""
    key: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str]
    """Of the request."""
    made_id: Mapped[UUID]
    """The job or the batch."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Key(Base):
    """An API key; of its secrets only their SHA-256."""

    __tablename__ = "keys"
    __table_args__ = (CheckConstraint(f"role IN ({_listed(Role)})", name="keys_role_known"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    owner: Mapped[str]
    role: Mapped[str]
    sha256: Mapped[str]
    previous_sha256: Mapped[str | None]
    """Of the secret before the last rotation."""
    previous_expires_at: Mapped[datetime | None]
    """When that one ends."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[str | None]
    """Id of the key that has made it; none: a peer on this machine, when there was no key yet."""
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    """To within a minute."""


class AuditEvent(Base):
    """Something that somebody has done through the API; never changed."""

    __tablename__ = "audit_events"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    key_id: Mapped[str | None]
    """None: a peer on this machine, when there was no key yet."""
    key_name: Mapped[str | None]
    owner: Mapped[str]
    """Of the key."""
    action: Mapped[str]
    target: Mapped[str | None]
    """What it was done to, as in the paths of the API."""
    request_id: Mapped[str]
    details: Mapped[Json]


class Attempt(Base):
    """One worker's hold on a job, from claim to end."""

    __tablename__ = "attempts"
    __table_args__ = (UniqueConstraint("job_id", "number", name="attempts_numbered"),)

    fencing_token: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    number: Mapped[int]
    worker: Mapped[str]
    device: Mapped[str]
    waited_seconds: Mapped[float | None]
    """From when the job could have been taken to when it was; None: not known."""
    tokens_per_mask: Mapped[int | None]
    """Calibration tokens that a mask is judged on; None: not known."""
    masks_evaluated: Mapped[int] = mapped_column(server_default="0")
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    """Why it ended: `succeeded`, `failed`, `paused`, `cancelled`, `drained`, `window_closed`,
    `crashed`, `stalled`, `host_out_of_memory`, `disk_full`, `storage_unavailable` or
    `lease_expired`."""


class LogLine(Base):
    """A line that the process of an attempt has said, numbered from 1; lines between its first and
    its last ones may be left out."""

    __tablename__ = "log_lines"

    fencing_token: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("attempts.fencing_token", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When it was stored."""
    text: Mapped[str]


class Worker(Base):
    """A worker that has said that it is there."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    device: Mapped[str]
    """What it is, for people."""
    device_kind: Mapped[str] = mapped_column(server_default="cpu")
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    free_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """When it last looked for a job."""
    compute_capability: Mapped[str | None]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    lost_at: Mapped[datetime]
    """When it counts as lost, unless it is heard of before."""
    device_failed: Mapped[bool] = mapped_column(server_default="false")
    """Whether its device did not compute when it was last asked."""
    draining: Mapped[bool] = mapped_column(server_default="false")
    """Whether it has been told to leave."""


class Usage(Base):
    """What an owner has used of the devices, counted less the longer it is ago."""

    __tablename__ = "usages"

    owner: Mapped[str] = mapped_column(primary_key=True)
    device_seconds: Mapped[float]
    """As of `at`; it halves with every half-life that has passed since."""
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class Event(Base):
    """Something that happened to a job, numbered from 1 without gaps."""

    __tablename__ = "events"

    job_id: Mapped[UUID] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    type: Mapped[str]
    data: Mapped[Json]


class Round(Base):
    """One round of a job: its prior when begun, its plan and repaired weights when finished."""

    __tablename__ = "rounds"

    job_id: Mapped[UUID] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    fencing_token: Mapped[int] = mapped_column(BigInteger)
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    prior: Mapped[Json]
    """Where the prior scores are: key, size in bytes, SHA-256."""
    record: Mapped[Json | None]
    """What the round decided and measured."""
    weights: Mapped[Json | None]
    """Where the repaired output projections are: key, size in bytes, SHA-256."""


class Evaluation(Base):
    """The ledger: one evaluated mask, written as soon as it is measured."""

    __tablename__ = "evaluations"

    job_id: Mapped[UUID] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    round: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    trial: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    utility: Mapped[float]
    seconds: Mapped[float]
    fencing_token: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class Dataset(Base):
    """An uploaded text."""

    __tablename__ = "datasets"
    __table_args__ = (
        Index("datasets_by_age", "created_at", "id"),
        Index("datasets_of_owner", "owner"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    owner: Mapped[str]
    name: Mapped[str | None]
    media_type: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    lines: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    key: Mapped[str]
    """Of its file."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    stored_at: Mapped[datetime | None]
    """Null: its file is not whole yet."""


class Webhook(Base):
    """An address that wants to hear what happens to the jobs of an owner."""

    __tablename__ = "webhooks"
    __table_args__ = (Index("webhooks_by_age", "created_at", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    owner: Mapped[str]
    name: Mapped[str | None]
    url: Mapped[str]
    events: Mapped[list[str]] = mapped_column(ARRAY(String))
    """What it wants to hear of, `jobs.deliveries.WebhookEvent`."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    enabled: Mapped[bool] = mapped_column(server_default="true")
    disabled_reason: Mapped[str | None]
    """Why the service has disabled it."""
    failing_since: Mapped[datetime | None]
    """The first of the tries that have failed in a row."""
    secret: Mapped[str]
    """As it is: signing needs it."""
    previous_secret: Mapped[str | None]
    """Signs too, for a while after a rotation."""
    previous_secret_until: Mapped[datetime | None]


class Delivery(Base):
    """A message to a webhook, and how far it has come."""

    __tablename__ = "deliveries"
    __table_args__ = (
        Index("deliveries_of_webhook", "webhook_id", "created_at", "id"),
        Index("deliveries_due", "next_try_at", postgresql_where="next_try_at IS NOT NULL"),
        Index("deliveries_taken", "webhook_id", postgresql_where="taken_until IS NOT NULL"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    webhook_id: Mapped[UUID] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event: Mapped[str]
    data: Mapped[Json]
    """What is told, as it was when the event happened."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    attempts: Mapped[int] = mapped_column(server_default="0")
    """How often it was taken to be sent; with its id, names the latest try."""
    tried_at: Mapped[datetime | None]
    taken_until: Mapped[datetime | None]
    """Whoever sends it now is given so long; after that somebody else may."""
    next_try_at: Mapped[datetime | None]
    """Null: it has arrived, or is given up."""
    delivered_at: Mapped[datetime | None]
    last_status: Mapped[int | None]
    last_error: Mapped[str | None]
    last_response: Mapped[str | None]


class Artifact(Base):
    """A published file of a succeeded job."""

    __tablename__ = "artifacts"
    __table_args__ = (Index("artifacts_by_size", "size_bytes"),)

    job_id: Mapped[UUID] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    content_type: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Registration(Base):
    """A model that a registry shall hear of; what came of it is in the events of its job."""

    __tablename__ = "registrations"
    __table_args__ = (Index("registrations_due", "due_at", postgresql_where="due_at IS NOT NULL"),)

    job_id: Mapped[UUID] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    due_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    """When it is tried next; None once the registry has it."""
    tries: Mapped[int] = mapped_column(server_default="0")
    error: Mapped[str | None]
    """Why the last try failed."""
