"""Which workers there are, and telling one to leave."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.access import Operator, Viewer
from api.dependencies import Workers
from api.openapi import problems
from api.schemas import Worker, WorkerPage

router = APIRouter(prefix="/v1/workers", tags=["workers"])

# What PostgreSQL can look for: it knows no NUL.
Name = Annotated[
    str, Path(pattern=r"^[^/\x00]{1,200}$", description="The worker's, as it is listed.")
]


@router.get("", operation_id="list_workers", responses=problems(503))
def list_workers(workers: Workers, _: Viewer) -> WorkerPage:
    """The workers that run, and those lost within a day, by name."""
    return WorkerPage.of(workers.list())


@router.post("/{name}/drain", operation_id="drain_worker", responses=problems(404, 422, 503))
def drain(name: Name, workers: Workers, _: Operator) -> Worker:
    """Have a worker give its job back after the forward pass in flight, and stop. It is not started
    again by itself. Doing it twice changes nothing."""
    return Worker.of(workers.drain(name))
