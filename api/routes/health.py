"""Whether the process lives, and whether it can take jobs."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.dependencies import Bell, Storage, Store, Workers
from api.handlers import database_down
from api.openapi import problems
from api.schemas import Health, Readiness
from jobs.errors import DATABASE_ERROR
from jobs.schema import REVISION
from jobs.workers import Presence

router = APIRouter(tags=["health"])

_UNABLE = {Presence.LOST, Presence.DRAINING, Presence.DEVICE_FAILED}


@router.get("/healthz", operation_id="healthz", responses=problems())
async def healthz() -> Health:
    """The process lives; nothing else is looked at."""
    return Health()


@router.get("/readyz", operation_id="readyz", response_model=Readiness, responses=problems(503))
def readyz(
    request: Request, store: Store, doorbell: Bell, storage: Storage, workers: Workers
) -> Readiness | Response:
    """Jobs are taken: the database answers and has the tables that the service needs. What else
    does not work is named, with what follows from it."""
    try:
        revision = store.ping()
        presences = [account.presence for account in workers.list()]
    except DATABASE_ERROR:
        return database_down(request)
    shortcomings = {
        "broker": doorbell.pending() is None and _NO_BROKER,
        "schema": revision > REVISION and _NEWER.format(revision, REVISION),
        "storage": not storage.works() and _NO_STORAGE,
        "workers": set(presences) <= _UNABLE and _NO_WORKERS,
    }
    return Readiness.of(
        {part: meaning for part, meaning in shortcomings.items() if meaning},
        revision=revision,
        workers=sum(presence is not Presence.LOST for presence in presences),
    )


_NO_BROKER = (
    "The broker does not answer: jobs are taken, but workers hear of them late, when they look by "
    "themselves. Look at BONSAI_REDIS_URL and the server there."
)
_NEWER = (
    "The database is at revision {}, this process knows {}: a newer version of the service has "
    "been there. Bring this process to that version."
)
_NO_STORAGE = (
    "Files cannot be stored, so no job will leave a result. Look at the room and the rights of "
    "BONSAI_DATA_DIR; the log says what failed."
)
_NO_WORKERS = (
    "No worker can take a job, so all wait. Start one, or look at `bonsai worker list` for what is "
    "wrong with those there are."
)
