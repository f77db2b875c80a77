"""Which jobs a list has, in which order, and where its next page begins."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Select, String, literal_column, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from jobs.cursors import cursor_of, sorted_place
from jobs.records import Job
from jobs.states import JobState


class JobSort(StrEnum):
    """An order of jobs; with `-`, the latest first."""

    NEWEST = "-created_at"
    OLDEST = "created_at"
    LAST_ENDED = "-finished_at"
    FIRST_ENDED = "finished_at"

    @property
    def column(self) -> InstrumentedAttribute[Any]:
        """What it goes by; jobs without it are left out."""
        return Job.created_at if self.value.endswith("created_at") else Job.finished_at

    @property
    def is_descending(self) -> bool:
        """Whether the latest comes first."""
        return self.value.startswith("-")


@dataclass(frozen=True, slots=True)
class JobFilter:
    """What jobs must be to be listed; what is empty or None lets all through.

    Attributes:
        states: one of these.
        labels: all of these.
        model: its source, as submitted.
        created_after: this moment or later.
        created_before: earlier.
    """

    states: frozenset[JobState] = frozenset()
    owner: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    model: str | None = None
    name: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None

    def of(self, query: Select[Job]) -> Select[Job]:
        """Those of a query."""
        if self.states:
            query = query.where(Job.state.in_(self.states))
        if self.owner is not None:
            query = query.where(Job.owner == self.owner)
        if self.labels:
            query = query.where(Job.labels.contains(dict(self.labels)))
        if self.model is not None:
            query = query.where(_model_source == self.model)
        if self.name is not None:
            query = query.where(Job.name == self.name)
        if self.created_after is not None:
            query = query.where(Job.created_at >= self.created_after)
        if self.created_before is not None:
            query = query.where(Job.created_at < self.created_before)
        return query


_model_source = literal_column("(jobs.request #>> '{model,source}')", String())
"""Where the model of a job comes from, word for word as an index has it."""


def in_order(query: Select[Job], sort: JobSort, cursor: str | None) -> Select[Job]:
    """The jobs of a query from where the cursor is.

    Raises:
        InvalidCursorError: it was not made by `next_cursor` for the same order.
    """
    column, place = sort.column, tuple_(sort.column, Job.id)
    if cursor is not None:
        last = tuple_(*sorted_place(cursor, str(sort)))
        query = query.where(place < last if sort.is_descending else place > last)
    query = query.where(column.is_not(None))
    if sort.is_descending:
        return query.order_by(column.desc(), Job.id.desc())
    return query.order_by(column, Job.id)


def next_cursor(last: Job, sort: JobSort) -> str:
    """Where the page after this job begins."""
    moment: datetime = getattr(last, sort.column.key)
    return cursor_of([str(sort), moment.isoformat(), str(last.id)])
