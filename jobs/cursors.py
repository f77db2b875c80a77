"""Cursors of lists: the place of the last item, in a form that clients hand back unchanged."""

import base64
import json
from datetime import datetime
from typing import Any
from uuid import UUID

from jobs.errors import InvalidCursorError


def cursor_of(place: list[Any]) -> str:
    """The cursor that names a place."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _place(cursor: str) -> list[Any]:
    try:
        place = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError as error:
        raise InvalidCursorError(cursor) from error
    if not isinstance(place, list):
        raise InvalidCursorError(cursor)
    return place


def job_place(cursor: str) -> tuple[datetime, UUID]:
    """Where a page of jobs goes on; InvalidCursorError if the cursor is none of theirs."""
    try:
        created_at, job_id = _place(cursor)
        return datetime.fromisoformat(created_at), UUID(job_id)
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidCursorError(cursor) from error


def sorted_place(cursor: str, sort: str) -> tuple[datetime, UUID]:
    """Where a page of jobs in some order goes on; InvalidCursorError if the cursor is of none, or
    of another order."""
    try:
        made_for, moment, job_id = _place(cursor)
        if made_for != sort:
            raise InvalidCursorError(cursor, made_for=str(made_for))
        return datetime.fromisoformat(moment), UUID(job_id)
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidCursorError(cursor) from error


def number_place(cursor: str, *, below: int = 2**31) -> int:
    """The number of the last item seen, of a list that is numbered, such as events or lines.

    Raises:
        InvalidCursorError: the cursor is none of such a list, or the number is not below `below`.
    """
    place = _place(cursor)
    if len(place) != 1 or not isinstance(place[0], int) or not 0 <= place[0] < below:
        raise InvalidCursorError(cursor)
    return place[0]
