"""Who has done what."""

from fastapi import APIRouter

from api.access import Admin
from api.dependencies import Audit
from api.openapi import problems
from api.routes.jobs import Cursor, Limit
from api.schemas import AuditEvent, AuditPage

router = APIRouter(prefix="/v1/audit", tags=["audit"])


@router.get("", operation_id="list_audit_events", responses=problems(422, 503))
def list_audit_events(
    audit: Audit, _: Admin, limit: Limit = 50, cursor: Cursor = None
) -> AuditPage:
    """What was done through the API, newest first: keys made, rotated and revoked, jobs and batches
    submitted, paused, resumed, cancelled, retried, pinned and unpinned, workers drained, files
    collected. Reading is not in it, nor what changed nothing."""
    page = audit.list(limit=limit, cursor=cursor)
    return AuditPage(
        items=[AuditEvent.model_validate(row) for row in page.items], next_cursor=page.next_cursor
    )
