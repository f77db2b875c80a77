"""What the processes of a job's attempts have said."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query
from fastapi.concurrency import run_in_threadpool

from api.access import Viewer
from api.dependencies import Logs, Watch
from api.openapi import problems
from api.routes.jobs import Cursor
from api.schemas import LogPage
from api.watch import Wait
from jobs import log_lines
from jobs.cursors import number_place
from jobs.store import Glance

router = APIRouter(prefix="/v1/jobs/{job_id}/attempts/{number}/logs", tags=["jobs"])

_MOST_LINES = 1000


@router.get("", operation_id="list_log_lines", responses=problems(404, 422, 503))
async def list_log_lines(
    job_id: UUID,
    number: Annotated[int, Path(ge=1, le=2**31 - 1, description="Of the attempt, from 1.")],
    logs: Logs,
    watcher: Watch,
    _: Viewer,
    limit: Annotated[int, Query(ge=1, le=_MOST_LINES, description="Most lines to return.")] = 200,
    cursor: Cursor = None,
    tail: Annotated[
        int | None,
        Query(
            ge=1,
            le=_MOST_LINES,
            description="Only the last so many lines, in place of `limit`; not looked at with a "
            "`cursor`.",
        ),
    ] = None,
    wait: Wait = 0,
) -> LogPage:
    """What the process of an attempt has said, oldest first. With `wait`, a page that would be
    empty is answered when there is a line, unless the attempt has ended. Logs go with the files of
    their job; of a long one, the first and the last mebibyte are kept."""

    def read() -> log_lines.LogPage:
        return logs.page(job_id, number, limit=limit, cursor=cursor, tail=tail)

    page = await run_in_threadpool(read)
    if wait and not page.items and not page.ended:
        seen, token = number_place(page.last_cursor), page.fencing_token

        def is_news(glance: Glance) -> bool:
            return glance.fencing_token != token or glance.last_line > seen

        if await watcher.until(job_id, is_news, wait) is not None:
            page = await watcher.read(read)
    return LogPage.of(page)
