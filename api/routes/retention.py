"""Keeping a job whatever its age, and removing what is not kept any longer."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from api.access import Operator, Submitter
from api.dependencies import Kept, Store
from api.openapi import problems
from api.routes.jobs import shown
from api.schemas import Expiries, Job

router = APIRouter(prefix="/v1", tags=["retention"])


@router.post("/jobs/{job_id}/pin", operation_id="pin_job", responses=problems(404, 422, 503))
def pin(job_id: UUID, store: Store, _: Submitter) -> Job:
    """Keep the files of a job whatever its age. Doing it twice changes nothing."""
    return shown(store.pin(job_id, pinned=True), store)


@router.post("/jobs/{job_id}/unpin", operation_id="unpin_job", responses=problems(404, 422, 503))
def unpin(job_id: UUID, store: Store, _: Submitter) -> Job:
    """Let the files of a job expire as others do. Doing it twice changes nothing."""
    return shown(store.pin(job_id, pinned=False), store)


@router.post("/gc", operation_id="collect_garbage", responses=problems(422, 503))
def collect(
    kept: Kept,
    _: Operator,
    dry_run: Annotated[bool, Query(description="Only tell what would be done.")] = False,
) -> Expiries:
    """Announce the end of what is not kept any longer, and remove what was announced long enough
    ago: files and ledgers of jobs that have ended. The jobs themselves stay. Workers do it by
    themselves, once in an hour."""
    return Expiries.of(kept.due() if dry_run else kept.collect())
