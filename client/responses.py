"""What the service answers, as values. Fields that this version does not know are kept."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

STATES = (
    *("queued", "running", "pausing", "paused", "cancelling"),
    *("succeeded", "failed", "cancelled"),
)
"""That a job may be in."""

FINAL = {"succeeded", "failed", "cancelled"}
"""States that a job does not leave."""


class _Response(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)


class Progress(_Response):
    """How far a job is. Times and speeds are those of the attempt that runs."""

    stage: str = "waiting"
    round: int = 0
    """Current round, from 1; 0 before the first."""

    rounds: int = 0
    """Rounds needed at most; 0 until that is known."""

    masks_evaluated: int = 0
    """Sub-models, in the current round."""

    masks_resumed: int = 0
    """Of these, those of before the attempt that runs."""

    masks_per_round: int = 0
    """Sub-models that the current round tries; 0 where it tries none."""

    sparsity: float = 0.0
    """Share of the non-embedding parameters removed so far, or planned to be."""

    perplexity_before: float | None = None
    perplexity: float | None = None
    """After the last finished round, on the calibration batch."""

    seconds_per_mask: float | None = None
    forward_passes_per_second: float | None = None
    seconds_left: float | None = None
    seconds_left_basis: str | None = None
    """What the estimate counts: `masks`, the sub-models still to try; `rounds`, also what rounds do
    besides."""


class Job(_Response):
    """A pruning job."""

    id: str
    name: str | None = None
    labels: dict[str, str] = {}
    metadata: dict[str, Any] = {}
    priority: str = "normal"
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
        return self.state in FINAL


class Duration(_Response):
    """How long a job would run on one kind of device."""

    device: str
    seconds: float | None = None
    """None: not known yet."""

    basis: str
    """`measured_on_this_model`, `scaled_from_other_models` or `not_known`."""

    jobs: int = 0
    """How many jobs that is told from."""

    parameters: int | None = None
    """Of their models, without embeddings."""


class WorkerFit(_Response):
    """Whether a worker could take a job."""

    name: str
    device: str = ""
    fits: bool
    whole: bool = True
    """Whether all weights could stay on its device."""


class Estimate(_Response):
    """What a submission would come to; what is None is not known."""

    request: dict[str, Any] = {}
    rounds: int | None = None
    masks: int | None = None
    """Sub-models to try, at most."""

    masks_at_least: int | None = None
    forward_tokens: int | None = None
    """At most: tokens through all layers of the dense model."""

    parameters: int | None = None
    """Of the dense model, without embeddings."""

    memory_bytes: int | None = None
    """Peak on its device."""

    streamed_memory_bytes: int | None = None
    """Peak on its device, with the layers coming one by one."""

    result_bytes: int | None = None
    checkpoint_bytes: int | None = None
    scratch_bytes: int | None = None
    unknown: str | None = None
    """Why some of these are None, in words."""

    durations: list[Duration] = []
    workers: list[WorkerFit] = []
    position: int | None = None
    """Place in the queue that the job would get, from 1."""

    waiting_reason: str | None = None


class BatchEstimate(_Response):
    """What the submission of a batch would come to; what is None is not known."""

    jobs: list[Estimate] = []
    """In the order of the request."""

    masks: int | None = None
    forward_tokens: int | None = None
    disk_bytes: int | None = None


class BatchJob(_Response):
    """A job in the report of its batch."""

    id: str
    name: str | None = None
    state: str
    model: str = ""
    target: dict[str, Any] = {}
    """How small its result shall be."""

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


class EventPage(_Response):
    """Some events of a job, oldest first."""

    items: list[Event]
    next_cursor: str | None = None
    last_cursor: str
    """For those that follow, be there some yet or not."""

    job_state: str

    @property
    def has_ended(self) -> bool:
        """Whether the job has come to its end, and nothing that led there follows."""
        return self.next_cursor is None and self.job_state in FINAL


class ArtifactLink(_Response):
    """Where the store itself gives out a file, to whoever has the URL."""

    url: str
    expires_at: datetime
    size_bytes: int
    sha256: str


class LogLine(_Response):
    """A line that the process of an attempt has said."""

    number: int
    at: datetime
    text: str


class LogPage(_Response):
    """Some lines of an attempt's log, oldest first."""

    items: list[LogLine]
    next_cursor: str | None = None
    last_cursor: str
    """For those that follow, be there some yet or not."""

    ended: bool
    """Whether the attempt has ended."""


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


class Shortcoming(_Response):
    """A part of the service that does not do what it should."""

    part: str
    meaning: str = ""
    """What is wrong, what follows from it, and what to do."""


class Readiness(_Response):
    """Whether the service does all that it should; it takes jobs."""

    status: str
    """`ready` or `degraded`."""

    degraded: list[Shortcoming] = []
    workers: int = 0
    """That are there, busy or not."""


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


class BatchSummary(_Response):
    """A batch in a list."""

    id: str
    name: str | None = None
    created_at: datetime
    counts: dict[str, int] = {}
    finished: bool = False


class Round(_Response):
    """What one round of a job did."""

    number: int
    started_at: datetime
    finished_at: datetime | None = None
    masks: int | None = None
    masks_evaluated: int = 0
    mask_seconds: float = 0.0
    seconds: float | None = None
    sparsity: float | None = None
    perplexity: float | None = None
    cut: bool | None = None
    removed: dict[str, int] | None = None
    """Units by gate."""


class QueuedJob(_Response):
    """A job in the queue."""

    id: str
    name: str | None = None
    owner: str = "default"
    priority: str = ""
    state: str
    model: str = ""
    target: dict[str, Any] = {}
    queued_at: datetime
    position: int | None = None
    waiting_reason: str | None = None
    worker: str | None = None
    seconds_left: float | None = None


class Queue(_Response):
    """What runs and what waits; of other owners only the numbers."""

    running: list[QueuedJob] = []
    waiting: list[QueuedJob] = []
    ready: int = 0
    held: dict[str, int] = {}
    """Jobs that wait, by reason."""


class Units(_Response):
    """What of a dense model can be pruned."""

    parameters: int
    non_embedding_parameters: int
    layers: int
    hidden_size: int = 0
    attention_groups: int = 0
    heads_per_group: int = 0
    mlp_channels: int = 0
    experts: int = 0
    reachable_sparsity: float = 0.0
    context: int | None = None


class Model(_Response):
    """A model that a job may name."""

    source: str
    weights_bytes: int | None = None
    gguf_files: list[str] = []
    architecture: str | None = None
    dtype: str | None = None
    prunable: bool | None = None
    reason: str | None = None
    units: Units | None = None


class ModelPage(_Response):
    """The models in the folders that the operator has named."""

    items: list[Model] = []
    folders: list[str] | None = None
    complete: bool = True


class Dataset(_Response):
    """An uploaded text."""

    id: str
    source: str
    """What a job says as its calibration's source to use it."""

    owner: str = "default"
    name: str | None = None
    media_type: str = "text/plain"
    size_bytes: int
    lines: int = 0
    sha256: str
    """Of the text, in hexadecimal digits."""

    created_at: datetime


class Webhook(_Response):
    """An address that hears what happens to the jobs of an owner."""

    id: str
    owner: str = "default"
    name: str | None = None
    url: str
    events: list[str] = []
    """What is told, such as `job.succeeded`."""

    created_at: datetime
    enabled: bool
    disabled_reason: str | None = None
    """Why the service has disabled it."""

    failing_since: datetime | None = None
    """The first of the tries that have failed in a row."""

    secret: str
    """That messages are signed with: whole when it was just made, otherwise its end."""

    previous_secret_until: datetime | None = None
    """Until then the secret before the last rotation signs too."""


class Delivery(_Response):
    """A message to a webhook, and how far it has come."""

    id: str
    """Also its `webhook-id` header."""

    event: str
    data: dict[str, Any] = {}
    created_at: datetime
    state: str
    """`pending`, `delivered` or `failed`."""

    attempts: int = 0
    tried_at: datetime | None = None
    next_try_at: datetime | None = None
    delivered_at: datetime | None = None
    last_status: int | None = None
    last_error: str | None = None
    last_response: str | None = None


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
