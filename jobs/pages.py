"""Pages of a list that has its newest row first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import Select, tuple_
from sqlalchemy.orm import Session

from jobs.cursors import cursor_of, job_place
from jobs.records import Batch, Dataset, Delivery, Webhook

Row = TypeVar("Row", Batch, Dataset, Delivery, Webhook)


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some rows, newest first, and the cursor of those that follow."""

    items: Sequence[Row]
    next_cursor: str | None


def newest_first(
    session: Session, table: type[Row], query: Select[Row], limit: int, cursor: str | None
) -> Page[Row]:
    """Up to `limit` rows of a query, after the place that `cursor` names.

    Raises:
        InvalidCursorError: `cursor` is none of such a list.
    """
    query = query.order_by(table.created_at.desc(), table.id.desc()).limit(limit + 1)
    if cursor is not None:
        query = query.where(tuple_(table.created_at, table.id) < tuple_(*job_place(cursor)))
    rows = session.scalars(query).all()
    last = rows[limit - 1] if len(rows) > limit else None
    return Page(
        rows[:limit], cursor_of([last.created_at.isoformat(), str(last.id)]) if last else None
    )
