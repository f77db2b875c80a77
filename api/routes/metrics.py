"""What Prometheus reads."""

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from api.access import Operator
from api.dependencies import Counted, Measured, Workers
from api.metrics import of_connections, of_database, of_rows
from api.openapi import problems
from jobs.errors import DATABASE_ERROR

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    operation_id="metrics",
    response_class=PlainTextResponse,
    responses={200: {"description": "In Prometheus' text format."}, **problems()},
)
def metrics(
    measured: Measured, counted: Counted, workers: Workers, _: Operator
) -> PlainTextResponse:
    """Figures of jobs, queue, attempts and workers, the same from every process, and of this
    process's requests. Without the database only the latter."""
    # Before a connection is taken for the figures.
    families = [*of_connections(*counted.connections)]
    try:
        families += of_rows(counted.read(), workers.list())
        families.append(of_database(up=True))
    except DATABASE_ERROR:
        families.append(of_database(up=False))
    return PlainTextResponse(measured.text(families), media_type=CONTENT_TYPE_LATEST)
