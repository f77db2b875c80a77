"""What runs and what waits, over all jobs."""

from fastapi import APIRouter

from api.access import Viewer
from api.dependencies import Store
from api.openapi import problems
from api.queue import Queue
from api.routes.jobs import Limit

router = APIRouter(prefix="/v1/queue", tags=["queue"])


@router.get("", operation_id="show_queue", responses=problems(422, 503))
def show(store: Store, _: Viewer, limit: Limit = 50) -> Queue:
    """The jobs that run, each with its worker, and those that wait, in the order in which they
    would be taken. Positions count the jobs of all owners; only the caller's are shown."""
    return Queue.of(store.queue(limit=limit))
