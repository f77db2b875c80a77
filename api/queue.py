"""The queue, as it goes over the wire."""

from datetime import datetime
from typing import Self
from uuid import UUID

from api.schemas import Job, JobLinks
from api.wire import Wire
from jobs import records, store
from jobs.queue import Place
from jobs.request import Target
from jobs.schedule import Priority, WaitingReason
from jobs.states import JobState


class QueuedJob(Wire):
    """A job in the queue; its own page says more."""

    id: UUID
    name: str | None
    owner: str
    priority: Priority
    state: JobState
    model: str
    target: Target
    queued_at: datetime
    """When it last came to the queue."""

    position: int | None
    """Among the jobs of all owners, from 1; null: it waits for a reason, or runs."""

    waiting_reason: WaitingReason | None
    worker: str | None
    """That has it; null: none has."""

    seconds_left: float | None
    """Of a job that runs, where that is estimated."""

    links: JobLinks

    @classmethod
    def of(cls, row: records.Job, place: Place | None = None, worker: str | None = None) -> Self:
        """The job of a row, where it stands, or who has it."""
        job = Job.of(row, place)
        return cls(
            id=job.id,
            name=job.name,
            owner=job.owner,
            priority=job.priority,
            state=job.state,
            model=job.request.model.source,
            target=job.request.target,
            queued_at=row.queued_at,
            position=job.position,
            waiting_reason=job.waiting_reason,
            worker=worker,
            seconds_left=job.progress.seconds_left,
            links=job.links,
        )


class Queue(Wire):
    """What runs and what waits. Of other owners' jobs only the numbers are told."""

    running: list[QueuedJob]
    """That a worker has, the one that has run for longest first."""

    waiting: list[QueuedJob]
    """In the order in which they would be taken; those that wait for a reason come last."""

    ready: int
    """Jobs of all owners that a free worker would take."""

    held: dict[WaitingReason, int]
    """Jobs of all owners that wait for a reason, by it."""

    @classmethod
    def of(cls, queue: store.Queue) -> Self:
        """The queue as it was read."""
        counts = {each.reason: each.jobs for each in queue.lengths}
        return cls(
            running=[QueuedJob.of(job, worker=worker) for job, worker in queue.running],
            waiting=[QueuedJob.of(job, place) for job, place in queue.waiting],
            ready=counts.pop(None, 0),
            held={reason: count for reason, count in counts.items() if reason is not None},
        )
