"""Every query on jobs and every guarded change of their state that a client may cause.

Each public method is one transaction. What an attempt may write is in `jobs.attempts`.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, func, select, text, tuple_
from sqlalchemy.orm import Session

from jobs.errors import (
    ArtifactNotFoundError,
    IllegalMoveError,
    InvalidCursorError,
    JobNotFoundError,
)
from jobs.moves import move, tell
from jobs.records import Artifact, Event, Job
from jobs.request import JobRequest
from jobs.states import MOVES, JobState


@dataclass(frozen=True, slots=True)
class JobPage:
    """Some jobs, newest first, and the cursor of those that follow."""

    items: Sequence[Job]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events of a job, oldest first, and the cursor of those that follow."""

    items: Sequence[Event]
    next_cursor: str | None


class JobStore:
    """Jobs as clients see them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def ping(self) -> None:
        """Ask the database for an answer; raises SQLAlchemyError when there is none."""
        with Session(self._engine) as session:
            session.execute(text("SELECT 1 FROM jobs LIMIT 1"))

    def submit(self, request: JobRequest) -> Job:
        """Insert a queued job and its first event."""
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            job = Job(
                name=request.name,
                labels=request.labels,
                request=request.model_dump(mode="json"),
                state=JobState.QUEUED,
                progress={},
            )
            session.add(job)
            session.flush()
            tell(session, job.id, "submitted", {})
            session.refresh(job)
        return job

    def show(self, job_id: UUID) -> Job:
        """One job; JobNotFoundError when there is none."""
        with Session(self._engine) as session:
            return _existing(session, job_id)

    def list(
        self, *, limit: int, cursor: str | None = None, state: JobState | None = None
    ) -> JobPage:
        """Up to `limit` jobs, newest first, after the place that `cursor` names.

        Raises:
            InvalidCursorError: `cursor` was not made by this method.
        """
        query = select(Job).order_by(Job.created_at.desc(), Job.id.desc()).limit(limit + 1)
        if state is not None:
            query = query.where(Job.state == state)
        if cursor is not None:
            query = query.where(tuple_(Job.created_at, Job.id) < tuple_(*_job_place(cursor)))
        with Session(self._engine) as session:
            jobs = session.scalars(query).all()
        more = len(jobs) > limit
        last = jobs[limit - 1] if more else None
        return JobPage(
            jobs[:limit], _cursor([last.created_at.isoformat(), str(last.id)]) if last else None
        )

    def cancel(self, job_id: UUID) -> Job:
        """Cancel a queued job at once; leave a wish for the worker of a running one.

        A second call changes nothing. A job that is final in another way cannot be cancelled.

        Raises:
            JobNotFoundError: there is no such job.
            IllegalMoveError: the job has succeeded or failed.
        """
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            job = _existing(session, job_id, lock=True)
            if job.state == JobState.QUEUED:
                wish = {"cancel_requested_at": func.now()}
                move(session, job_id, JobState.CANCELLED, data={}, values=wish)
            elif job.state == JobState.RUNNING and job.cancel_requested_at is None:
                job.cancel_requested_at = func.now()
                session.flush()
                tell(session, job_id, "cancel_requested", {})
            elif job.state in {JobState.SUCCEEDED, JobState.FAILED}:
                legal = sorted(str(target) for target in MOVES[JobState(job.state)])
                raise IllegalMoveError(job_id, job.state, JobState.CANCELLED, legal)
            session.flush()
            session.refresh(job)
        return job

    def events(self, job_id: UUID, *, limit: int, cursor: str | None = None) -> EventPage:
        """Up to `limit` events of a job after `cursor`, oldest first.

        Raises:
            JobNotFoundError: there is no such job.
            InvalidCursorError: `cursor` was not made by this method.
        """
        after = _event_place(cursor) if cursor is not None else 0
        query = (
            select(Event)
            .where(Event.job_id == job_id, Event.sequence > after)
            .order_by(Event.sequence)
            .limit(limit + 1)
        )
        with Session(self._engine) as session:
            _existing(session, job_id)
            events = session.scalars(query).all()
        more = len(events) > limit
        return EventPage(events[:limit], _cursor([events[limit - 1].sequence]) if more else None)

    def artifacts(self, job_id: UUID) -> Sequence[Artifact]:
        """The published files of a job by name; none before it has succeeded."""
        with Session(self._engine) as session:
            _existing(session, job_id)
            query = select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.name)
            return session.scalars(query).all()

    def artifact(self, job_id: UUID, name: str) -> Artifact:
        """One published file of a job.

        Raises:
            JobNotFoundError: there is no such job.
            ArtifactNotFoundError: the job has no such file.
        """
        published = self.artifacts(job_id)
        for artifact in published:
            if artifact.name == name:
                return artifact
        raise ArtifactNotFoundError(job_id, name, [artifact.name for artifact in published])


def _existing(session: Session, job_id: UUID, *, lock: bool = False) -> Job:
    job = session.get(Job, job_id, with_for_update=lock or None)
    if job is None:
        raise JobNotFoundError(job_id)
    return job


def _cursor(place: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _place(cursor: str) -> list[Any]:
    try:
        place = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError as error:
        raise InvalidCursorError(cursor) from error
    if not isinstance(place, list):
        raise InvalidCursorError(cursor)
    return place


def _job_place(cursor: str) -> tuple[datetime, UUID]:
    try:
        created_at, job_id = _place(cursor)
        return datetime.fromisoformat(created_at), UUID(job_id)
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidCursorError(cursor) from error


def _event_place(cursor: str) -> int:
    place = _place(cursor)
    if len(place) != 1 or not isinstance(place[0], int) or not 0 <= place[0] < 2**31:
        raise InvalidCursorError(cursor)
    return place[0]
