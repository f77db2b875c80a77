"""What has happened to a job, page by page or as it happens."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from fastapi.concurrency import run_in_threadpool

from api.access import Viewer
from api.dependencies import Store, Watch
from api.event_stream import RETRY_MILLISECONDS, EventStream, JobFeed
from api.openapi import Responses, problems
from api.routes.jobs import Cursor, Limit
from api.schemas import EventPage
from api.watch import Wait
from jobs.cursors import number_place
from jobs.store import Glance

router = APIRouter(prefix="/v1/jobs/{job_id}/events", tags=["events"])

_LARGEST = 2**31 - 1
_ABOUT_LAST = "Sequence of the last event that the reader has; those after it are sent."
_STREAM: dict[str, Any] = {
    "description": "Server-sent events. Without a name: an event, as in a page of events, with its "
    "sequence as id. `progress`, without id: the job's progress, when it has changed, once in a "
    "second at most. `end`, without id: the final state; the stream ends. Comments in between keep "
    "the connection.",
    "content": {
        "text/event-stream": {
            "itemSchema": {
                "type": "object",
                "properties": {
                    "data": {"type": "string", "description": "JSON."},
                    "event": {"type": "string", "description": "`progress`, `end`, or none."},
                    "id": {"type": "string", "description": "Sequence of an event."},
                    "retry": {"type": "integer", "minimum": 0, "description": "Milliseconds."},
                },
                "required": ["data"],
            },
            "example": f"retry: {RETRY_MILLISECONDS}\n\n"
            'data: {"sequence":2,"at":"2026-12-01T22:00:00Z","type":"running","data":'
            '{"attempt":1,"worker":"gpu-1","device":"NVIDIA H100"}}\nid: 2\n\n'
            'event: progress\ndata: {"stage":"pruning","round":1,"rounds":3}\n\n'
            'event: end\ndata: {"state":"succeeded"}\n\n',
        }
    },
}
_RESPONSES: Responses = {
    200: _STREAM,
    204: {"description": "The job has ended, and the reader has all its events: do not come back."},
    **problems(404, 422, 503),
}


@router.get("", operation_id="list_events", responses=problems(404, 422, 503))
async def list_events(
    job_id: UUID,
    store: Store,
    watcher: Watch,
    _: Viewer,
    limit: Limit = 50,
    cursor: Cursor = None,
    wait: Wait = 0,
) -> EventPage:
    """What has happened to a job, oldest first. With `wait`, a page that would be empty is answered
    when something has happened, unless the job has ended."""

    def read() -> EventPage:
        return EventPage.of(store.events(job_id, limit=limit, cursor=cursor))

    page = await run_in_threadpool(read)
    if page.items or page.job_state.is_final or not wait:
        return page
    seen = number_place(page.last_cursor)
    found = await watcher.until(job_id, lambda glance: glance.last_event > seen, wait)
    return page if found is None else await watcher.read(read)


@router.get(
    "/stream",
    operation_id="stream_events",
    status_code=200,
    response_class=Response,
    responses=_RESPONSES,
)
async def stream(
    job_id: UUID,
    store: Store,
    watcher: Watch,
    _: Viewer,
    last_event_header: Annotated[
        int | None, Header(alias="Last-Event-ID", ge=0, le=_LARGEST, description=_ABOUT_LAST)
    ] = None,
    last_event_id: Annotated[
        int,
        Query(
            ge=0,
            le=_LARGEST,
            description="The same, for readers that cannot set headers; the header comes first.",
        ),
    ] = 0,
) -> Response:
    """Follow a job to its end: what has happened, what happens, and its progress. A reader that was
    cut off comes back with the id of its last event, and has missed nothing."""
    sent = last_event_id if last_event_header is None else last_event_header
    glance = await run_in_threadpool(store.glance, job_id)
    if sent and _is_over(glance, sent):
        return Response(status_code=204)
    return EventStream(JobFeed(job_id, sent, store, watcher).messages(glance))


def _is_over(glance: Glance, sent: int) -> bool:
    return glance.state.is_final and glance.last_event <= sent
