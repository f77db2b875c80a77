"""Submit, show and list jobs; pause, resume, cancel and retry one; its attempts."""

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import APIRouter, BackgroundTasks, Body, Query, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.openapi.models import Example
from pydantic import BaseModel

from api.access import Submitter, Viewer
from api.dependencies import AllowedSources, Bell, Datasets, Store, Watch
from api.estimates import Estimate
from api.filters import JobQuery
from api.idempotency import REPLAYED, REPLAYED_HEADER, IdempotencyKey
from api.openapi import problems
from api.rounds import Round, RoundPage
from api.schemas import Attempt, AttemptPage, Job, JobPage, job_path
from api.validation import require_storable, unreadable
from api.watch import Wait
from jobs import records
from jobs.datasets import DatasetStore
from jobs.estimate import estimate
from jobs.idempotency import submission_key
from jobs.job_change import JobChange
from jobs.request import JobRequest, check_inputs, owned
from jobs.roles import Caller
from jobs.sources import Sources
from jobs.states import JobState, Wish
from jobs.store import JobStore

_log = structlog.get_logger(__name__)

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

Limit = Annotated[int, Query(ge=1, le=200, description="Most items to return.")]
Cursor = Annotated[
    str | None, Query(max_length=200, description="`next_cursor` of the page before, unchanged.")
]

ValidateOnly = Annotated[
    bool,
    Query(description="Check everything, store nothing, and answer 200 with what it would take."),
]

EXAMPLE: dict[str, Any] = {
    "name": "smol-20",
    "labels": {"team": "search"},
    "metadata": {"ticket": "https://tickets.example/42"},
    "owner": "search",
    "schedule": {
        "priority": "normal",
        "not_before": None,
        "deadline": None,
        "after": None,
        "window": {
            "hours": "22:00-07:00",
            "zone": "Europe/Berlin",
            "days": ["monday", "tuesday", "wednesday", "thursday", "friday"],
            "at_close": "pause",
        },
    },
    "device": {"kind": None, "memory_bytes": None, "streamed_memory_bytes": None},
    "model": {
        "source": "/models/SmolLM2-135M",
        "revision": None,
        "gguf_file": None,
        "dtype": "auto",
    },
    "calibration": {
        "source": "/data/wikitext2-valid.txt",
        "samples": 32,
        "sequence_length": 1024,
    },
    "target": {"sparsity": 0.5},
    "pruning": {
        "preset": "best",
        "recipe": "measured_damage",
        "prior": "elimination",
        "utility": "kl",
        "masks_per_round": 200,
        "sparsity_per_round": 0.05,
        "improvements": 2,
        "own_text": 0.125,
        "samples_per_mask": None,
        "layout": "per_layer",
        "experts": "channels",
        "align": None,
        "tensor_parallel": 1,
        "refit": True,
        "damping": 0.001,
        "seed": 0,
    },
}
CREATED: dict[str, Any] = {
    "description": "Queued, durably.",
    "headers": {"Location": {"description": "Its path.", "schema": {"type": "string"}}},
}
SUBMITTED = {**CREATED, "headers": {**CREATED["headers"], REPLAYED: REPLAYED_HEADER}}
_SHORT_EXAMPLE = {key: EXAMPLE[key] for key in ("model", "calibration", "target")}
_EXAMPLES = {
    "all": Example(summary="At night, with the pruning spelled out", value=EXAMPLE),
    "short": Example(summary="What must be said", value=_SHORT_EXAMPLE),
}


@router.post(
    "",
    operation_id="submit_job",
    status_code=201,
    responses={
        200: {"description": "Nothing is queued: what it would come to.", "model": Estimate},
        201: SUBMITTED,
        **problems(400, 409, 415, 422, 503),
    },
    response_model=Job,
)
def submit(
    request: Annotated[JobRequest, Body(openapi_examples=_EXAMPLES)],
    response: Response,
    afterwards: BackgroundTasks,
    store: Store,
    doorbell: Bell,
    sources: AllowedSources,
    datasets: Datasets,
    caller: Submitter,
    key: IdempotencyKey = None,
    validate_only: ValidateOnly = False,
) -> Job | Response:
    """Queue a pruning job, after checking its files, its architecture and that its target is
    reachable. Sparsity is a share of the non-embedding parameters, between 0 and 1. With
    `validate_only` all is checked and nothing stored; the answer says what the job would take."""
    require_storable(request)
    if validate_only:
        return answer(estimated([_checked(request, sources, datasets, caller)], store)[0])
    submission = submission_key(key, request)
    # Files may have gone since; that is no reason to deny what was queued.
    checked = (
        request if store.has_submitted(submission) else _checked(request, sources, datasets, caller)
    )
    job, replayed = store.submit_once(checked, submission)
    if replayed:
        response.headers[REPLAYED] = "true"
    else:
        _log.info("job_submitted", job_id=str(job.id))
    # After the response: a broker that is down makes the ringing slow.
    afterwards.add_task(doorbell.ring, job.id)
    response.headers["Location"] = job_path(job.id)
    return shown(job, store)


def estimated(requests: Sequence[JobRequest], store: JobStore) -> list[Estimate]:
    """What checked requests would come to, submitted together."""
    rehearsals = store.rehearse(requests)
    return [
        Estimate.of(request, estimate(request), rehearsal)
        for request, rehearsal in zip(requests, rehearsals, strict=True)
    ]


def answer(value: BaseModel) -> Response:
    """A value with status 200, where a route's own answer has another."""
    return Response(value.model_dump_json(), media_type="application/json")


def _checked(
    request: JobRequest, sources: Sources, datasets: DatasetStore, caller: Caller
) -> JobRequest:
    try:
        checked = check_inputs(request, sources)
    except OSError as error:
        raise unreadable(request, error) from error
    datasets.require(owned(checked, caller))
    return checked


@router.get("", operation_id="list_jobs", responses=problems(422, 503))
def list_jobs(store: Store, _: Viewer, query: Annotated[JobQuery, Query()]) -> JobPage:
    """Jobs, newest first unless `sort` says otherwise. Filters go together: a job must pass all.
    Following `next_cursor` skips none, also while new ones come in."""
    page = store.list(limit=query.limit, cursor=query.cursor, wanted=query.wanted, sort=query.sort)
    return JobPage.of(page, store.places(page.items))


@router.get("/{job_id}", operation_id="show_job", responses=problems(404, 422, 503))
async def show(
    job_id: UUID,
    store: Store,
    watcher: Watch,
    _: Viewer,
    wait: Wait = 0,
    state: Annotated[
        JobState | None,
        Query(
            description="With `wait`: answer as soon as the job is in another state than this one, "
            "or has ended (default: the state that it is in)."
        ),
    ] = None,
) -> Job:
    """One job: what was asked, how far it is, what came of it. With `wait`, as soon as it comes to
    another state."""

    def read() -> Job:
        return shown(store.show(job_id), store)

    job = await run_in_threadpool(read)
    known = state or job.state
    if not wait or job.state is not known or job.state.is_final:
        return job
    await watcher.until(job_id, lambda glance: glance.state is not known, wait)
    return await watcher.read(read)


_CHANGES = {
    "labels": Example(summary="Say more of it", value={"labels": {"team": "search", "run": "7"}}),
    "priority": Example(summary="Let it go first", value={"priority": "high"}),
}


@router.patch(
    "/{job_id}", operation_id="edit_job", responses=problems(400, 404, 409, 415, 422, 503)
)
def edit(
    job_id: UUID,
    change: Annotated[JobChange, Body(openapi_examples=_CHANGES)],
    store: Store,
    _: Submitter,
) -> Job:
    """Change name, labels and metadata of a job, whatever its state, and its priority while it is
    queued or paused. What is absent or null stays; labels and metadata are replaced as a whole."""
    require_storable(change)
    return shown(store.edit(job_id, change), store)


@router.get("/{job_id}/rounds", operation_id="list_rounds", responses=problems(404, 422, 503))
def rounds(job_id: UUID, store: Store, _: Viewer) -> RoundPage:
    """What each round of a job did: sub-models tried, sparsity and perplexity at its end, and what
    went from each gate. Shares are of the non-embedding parameters, times in seconds."""
    return RoundPage(items=[Round.of(account) for account in store.rounds(job_id)])


@router.post("/{job_id}/pause", operation_id="pause_job", responses=problems(404, 409, 422, 503))
def pause(job_id: UUID, store: Store, _: Submitter) -> Job:
    """Pause a job: a queued one at once, a running one after the forward pass in flight, which
    frees its device. All that was evaluated is kept. Doing it twice changes nothing."""
    return shown(store.ask(job_id, Wish.PAUSE), store)


@router.post("/{job_id}/resume", operation_id="resume_job", responses=problems(404, 409, 422, 503))
def resume(
    job_id: UUID, store: Store, afterwards: BackgroundTasks, doorbell: Bell, _: Submitter
) -> Job:
    """Let a paused job go on, from what it has evaluated. Doing it twice changes nothing."""
    job = store.ask(job_id, Wish.RESUME)
    afterwards.add_task(doorbell.ring, job.id)
    return shown(job, store)


@router.post("/{job_id}/cancel", operation_id="cancel_job", responses=problems(404, 409, 422, 503))
def cancel(job_id: UUID, store: Store, _: Submitter) -> Job:
    """Cancel a job: a queued or paused one at once, a running one after the forward pass in flight.
    Doing it twice changes nothing; a job that has succeeded or failed cannot be cancelled."""
    return shown(store.ask(job_id, Wish.CANCEL), store)


@router.post(
    "/{job_id}/retry",
    operation_id="retry_job",
    status_code=201,
    responses={201: CREATED, **problems(404, 409, 422, 503)},
)
def retry(
    job_id: UUID,
    response: Response,
    store: Store,
    afterwards: BackgroundTasks,
    doorbell: Bell,
    _: Submitter,
) -> Job:
    """Queue a new job that goes on from what a failed or cancelled one has evaluated; it starts
    anew if the inputs have changed since. Doing it twice gives the same job."""
    job = store.retry(job_id)
    _log.info("job_retried", job_id=str(job.id), retry_of=str(job_id))
    afterwards.add_task(doorbell.ring, job.id)
    response.headers["Location"] = job_path(job.id)
    return shown(job, store)


def shown(job: records.Job, store: JobStore) -> Job:
    """A job with its place in the queue."""
    return Job.of(job, store.places([job]).get(job.id))


@router.get("/{job_id}/attempts", operation_id="list_attempts", responses=problems(404, 422, 503))
def attempts(job_id: UUID, store: Store, _: Viewer) -> AttemptPage:
    """Which workers have held a job, how far each came and why it let go, the first one first."""
    return AttemptPage(items=[Attempt.of(account) for account in store.attempts(job_id)])
