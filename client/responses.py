"""What the service answers, as values. Fields that this version does not know are kept."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _Response(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)


class Progress(_Response):
    """How far a job is."""

    stage: str = "waiting"
    round: int = 0
    """Current round, from 1; 0 before the first."""

    rounds: int = 0
    """Rounds needed at most; 0 until that is known."""

    masks_evaluated: int = 0
    """Sub-models, in the current round."""

    masks_per_round: int = 0
    """Sub-models that the current round tries; 0 where it tries none."""

    sparsity: float = 0.0
    """Share of the non-embedding parameters removed so far, or planned to be."""

    perplexity_before: float | None = None
    perplexity: float | None = None
    """After the last finished round, on the calibration batch."""

    seconds_per_mask: float | None = None
    seconds_left: float | None = None


class Job(_Response):
    """A pruning job."""

    id: str
    name: str | None = None
    labels: dict[str, str] = {}
    state: str
    """`queued`, `running`, `pausing`, `paused`, `cancelling`, `succeeded`, `failed` or
    `cancelled`."""

    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    owner: str = "default"
    waiting_reason: str | None = None
    """Why a free worker would not take it, while it is queued."""

    position: int | None = None
    """Place in the queue, from 1."""

    batch_id: str | None = None
    retry_of: str | None = None
    """The job from whose evaluated masks this one goes on."""

    pinned: bool = False
    expires_at: datetime | None = None
    """When its files go, once that is announced."""

    expired_at: datetime | None = None
    attempts: int = 0
    request: dict[str, Any] = {}
    progress: Progress = Progress()
    error: dict[str, Any] | None = None
    result: dict[str, Any] | None = None

    @property
    def is_final(self) -> bool:
        """Whether the job has come to its end."""
        return self.state in {"succeeded", "failed", "cancelled"}


class BatchJob(_Response):
    """A job in the report of its batch."""

    id: str
    name: str | None = None
    state: str
    model: str = ""
    target_sparsity: float = 0.0
    sparsity: float = 0.0
    error: dict[str, Any] | None = None
    result: dict[str, Any] | None = None


class Batch(_Response):
    """Jobs that were submitted together."""

    id: str
    name: str | None = None
    created_at: datetime
    counts: dict[str, int] = {}
    """Jobs by state."""

    finished: bool
    jobs: list[BatchJob] = []


class Mask(_Response):
    """An evaluated sub-model, by its place."""

    round: int
    trial: int


class Attempt(_Response):
    """One worker's hold on a job."""

    number: int
    worker: str
    device: str
    started_at: datetime
    ended_at: datetime | None = None
    outcome: str | None = None
    """Why it ended; None while it holds the job."""

    masks_evaluated: int = 0
    last_mask: Mask | None = None


class Event(_Response):
    """Something that happened to a job."""

    sequence: int
    at: datetime
    type: str
    data: dict[str, Any] = {}


class Artifact(_Response):
    """A published file of a job."""

    name: str
    size_bytes: int
    sha256: str
    """Of the whole file, in hexadecimal digits."""

    content_type: str = "application/octet-stream"


class Worker(_Response):
    """A process that runs jobs, one at a time."""

    name: str
    device: str = ""
    memory_bytes: int | None = None
    """That jobs may take of the device."""

    free_bytes: int | None = None
    """Of these, what nobody else held when it last looked for a job."""

    presence: str
    """`idle`, `busy`, `draining` or `lost`."""

    job_id: str | None = None
    started_at: datetime
    seen_at: datetime


class Expiry(_Response):
    """A job whose files are not kept any longer."""

    job_id: str
    name: str | None = None
    owner: str = ""
    finished_at: datetime
    why: str
    due_at: datetime | None = None
    """When it goes; None: it is announced now."""

    size_bytes: int
    is_due: bool
    """Whether it goes now."""


class Expiries(_Response):
    """What is not kept any longer, the oldest first."""

    items: list[Expiry]
    size_bytes: int
    """Of those that go now."""


class Key(_Response):
    """An API key, without its secret."""

    id: str
    name: str = ""
    owner: str = "default"
    role: str = ""
    """`viewer`, `submitter`, `operator` or `admin`."""

    live: bool = True
    """Whether it opens anything now."""

    created_at: datetime
    created_by: str | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    previous_expires_at: datetime | None = None
    """When the secret before the last rotation ends."""

    last_used_at: datetime | None = None
    """To within a minute."""


class NewKey(Key):
    """An API key with its secret, which is not shown again."""

    key: str = Field(repr=False)


class Me(_Response):
    """Whom the service takes us for."""

    key_id: str | None = None
    key_name: str | None = None
    owner: str
    role: str
    sees_all_owners: bool = False


class AuditEvent(_Response):
    """Something that somebody has done through the API."""

    at: datetime
    key_id: str | None = None
    key_name: str | None = None
    owner: str
    action: str
    target: str | None = None
    request_id: str = ""
    details: dict[str, Any] = {}


class FieldError(_Response):
    """One thing wrong with one field of a request."""

    pointer: str = ""
    """JSON pointer into the request."""

    message: str = ""
    value: Any = None
    allowed: str | None = None


class Problem(_Response):
    """An error of the service, as in RFC 9457."""

    type: str = "about:blank"
    title: str = ""
    status: int
    detail: str = ""
    code: str = ""
    """Stable name of the kind of problem, for programs."""

    errors: list[FieldError] = []
    request_id: str | None = None


class Page(_Response):
    """Some items of a list, and the cursor of those that follow."""

    items: list[dict[str, Any]]
    next_cursor: str | None = None
