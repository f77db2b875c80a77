"""Submit, show and cancel many jobs at once."""

from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import APIRouter, BackgroundTasks, Body, Response
from fastapi.openapi.models import Example

from api.access import Submitter, Viewer
from api.dependencies import AllowedSources, Bell, Datasets, Store
from api.estimates import BatchEstimate
from api.idempotency import REPLAYED, IdempotencyKey
from api.openapi import problems
from api.routes.jobs import EXAMPLE, SUBMITTED, Cursor, Limit, ValidateOnly, answer, estimated
from api.schemas import Batch, BatchPage
from api.validation import require_storable, unreadable
from jobs.batch import BatchRequest
from jobs.datasets import DatasetStore
from jobs.errors import PruneError
from jobs.idempotency import submission_key
from jobs.request import check_inputs, owned
from jobs.roles import Caller
from jobs.sources import Sources

_log = structlog.get_logger(__name__)

router = APIRouter(prefix="/v1/batches", tags=["batches"])

_JOB = {key: EXAMPLE[key] for key in ("model", "calibration", "target")}
_FAMILY: dict[str, Any] = {"name": "family", "template": _JOB, "sparsities": [0.2, 0.35, 0.5]}
_EXAMPLES = {
    "template": Example(summary="One model at three sparsities", value=_FAMILY),
    "jobs": Example(summary="A list of jobs", value={"name": "night", "jobs": [_JOB, _JOB]}),
}


@router.post(
    "",
    operation_id="submit_batch",
    status_code=201,
    responses={
        200: {"description": "Nothing is queued: what it would come to.", "model": BatchEstimate},
        201: SUBMITTED,
        **problems(400, 409, 415, 422, 503),
    },
    response_model=Batch,
)
def submit(
    request: Annotated[BatchRequest, Body(openapi_examples=_EXAMPLES)],
    response: Response,
    afterwards: BackgroundTasks,
    store: Store,
    doorbell: Bell,
    sources: AllowedSources,
    datasets: Datasets,
    caller: Submitter,
    key: IdempotencyKey = None,
    validate_only: ValidateOnly = False,
) -> Batch | Response:
    """Queue many jobs, all of them or none: a list, or a template over models and sparsities. Each
    is checked as one of its own. With `validate_only` nothing is stored, as for one job."""
    require_storable(request)
    if validate_only:
        return answer(
            BatchEstimate.of(
                estimated(_checked(request, sources, datasets, caller).requests(), store)
            )
        )
    submission = submission_key(key, request)
    checked = (
        request if store.has_submitted(submission) else _checked(request, sources, datasets, caller)
    )
    made, replayed = store.submit_batch_once(checked, submission)
    if replayed:
        response.headers[REPLAYED] = "true"
    else:
        _log.info("batch_submitted", batch_id=str(made.id))
    row, queued = store.batch(made.id)
    for found in queued:
        afterwards.add_task(doorbell.ring, found.id)
    response.headers["Location"] = f"/v1/batches/{row.id}"
    return Batch.of(row, queued)


def _checked(
    batch: BatchRequest, sources: Sources, datasets: DatasetStore, caller: Caller
) -> BatchRequest:
    """As for one job; what is wrong is named by its place in the batch."""
    checked = []
    for number, job in enumerate(batch.requests()):
        try:
            # As in the store, which no longer knows where the request has said it.
            named = owned(job, caller, batch.field_of(number, "owner"))
            found = check_inputs(named, sources)
            datasets.require(found)
            checked.append(found)
        except PruneError as error:
            error.field = batch.field_of(number, error.field)
            raise
        except OSError as error:
            raise unreadable(job, error, at=batch.pointer_to(number)) from error
    return BatchRequest(name=batch.name, jobs=tuple(checked))


@router.get("", operation_id="list_batches", responses=problems(422, 503))
def list_batches(store: Store, _: Viewer, limit: Limit = 50, cursor: Cursor = None) -> BatchPage:
    """Batches, newest first, each with its jobs by state."""
    return BatchPage.of(store.batches(limit=limit, cursor=cursor))


@router.get("/{batch_id}", operation_id="show_batch", responses=problems(404, 422, 503))
def show(batch_id: UUID, store: Store, _: Viewer) -> Batch:
    """How the jobs of a batch fare: counts by state, and each job with its error or result."""
    return Batch.of(*store.batch(batch_id))


@router.post("/{batch_id}/cancel", operation_id="cancel_batch", responses=problems(404, 422, 503))
def cancel(batch_id: UUID, store: Store, _: Submitter) -> Batch:
    """Cancel every job of a batch that has not ended; the others stay as they are. Doing it twice
    changes nothing."""
    store.cancel_batch(batch_id)
    return Batch.of(*store.batch(batch_id))
