"""Who has done what: written in the transaction of what was done, and never changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from jobs.cursors import cursor_of, number_place
from jobs.records import AuditEvent
from jobs.roles import Caller


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Some audit events, newest first, and the cursor of those that follow."""

    items: Sequence[AuditEvent]
    next_cursor: str | None


def record(
    session: Session, caller: Caller | None, action: str, target: str | None, **details: Any
) -> None:
    """Write down what a caller does; what the service does by itself (None) is in its log.

    `target` is what it is done to, as in the paths: `jobs/...`, `batches/...`, `keys/...`.
    """
    if caller is None:
        return
    session.add(
        AuditEvent(
            key_id=caller.key_id,
            key_name=caller.key_name,
            owner=caller.owner,
            action=action,
            target=target,
            request_id=caller.request_id,
            details=details,
        )
    )


class AuditStore:
    """The audit events, to read."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def list(self, *, limit: int, cursor: str | None = None) -> AuditPage:
        """Up to `limit` of them, newest first, after the place that `cursor` names.

        Raises:
            InvalidCursorError: `cursor` was not made by this method.
        """
        query = select(AuditEvent).order_by(AuditEvent.id.desc()).limit(limit + 1)
        if cursor is not None:
            query = query.where(AuditEvent.id < number_place(cursor, below=2**63))
        with Session(self._engine) as session:
            events = session.scalars(query).all()
        more = len(events) > limit
        return AuditPage(events[:limit], cursor_of([events[limit - 1].id]) if more else None)
