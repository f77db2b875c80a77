"""Whether the process lives, and whether it can take jobs."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.dependencies import Bell, Store, Workers
from api.handlers import database_down
from api.openapi import problems
from api.schemas import Health, Readiness
from jobs.errors import DATABASE_ERROR
from jobs.workers import Presence

router = APIRouter(tags=["health"])


@router.get("/healthz", operation_id="healthz", responses=problems())
async def healthz() -> Health:
    """The process lives; nothing else is looked at."""
    return Health()


@router.get("/readyz", operation_id="readyz", response_model=Readiness, responses=problems(503))
def readyz(
    request: Request, store: Store, doorbell: Bell, workers: Workers
) -> Readiness | Response:
    """The database answers and has its tables. Without the broker jobs are still taken."""
    try:
        store.ping()
        present = sum(account.presence is not Presence.LOST for account in workers.list())
    except DATABASE_ERROR:
        return database_down(request)
    return Readiness(broker="down" if doorbell.pending() is None else "up", workers=present)
