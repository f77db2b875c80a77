"""Which workers there are: each says so from time to time, and hears whether it is to leave."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Engine, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.orm import Session

from jobs.audit import record
from jobs.devices import Device
from jobs.errors import WorkerNotFoundError
from jobs.records import Attempt, Job, Worker
from jobs.roles import OnBehalf
from jobs.states import WITHOUT_WORKER

FORGOTTEN_AFTER = timedelta(days=1)
"""A lost worker is listed for so long."""


class Presence(StrEnum):
    """What a worker is at."""

    IDLE = "idle"
    BUSY = "busy"
    DEVICE_FAILED = "device_failed"
    DRAINING = "draining"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class WorkerAccount:
    """A worker, what it is at, and the job it has."""

    worker: Worker
    presence: Presence
    job_id: UUID | None


class WorkerStore(OnBehalf):
    """The workers' rows. Each public method is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def arrive(self, name: str, device: Device, seconds: float) -> None:
        """A worker has started; it counts as lost when it has been silent for so many seconds."""
        forgotten = delete(Worker).where(Worker.lost_at < func.now() - FORGOTTEN_AFTER)
        with Session(self._engine) as session, session.begin():
            session.execute(forgotten)
            anew = {"started_at": func.now(), "draining": False}
            session.execute(_seen(name, device, seconds, anew))

    def beat(self, name: str, device: Device, seconds: float) -> bool:
        """The worker is still there, also if it was forgotten; whether it is to leave."""
        with Session(self._engine) as session, session.begin():
            return bool(session.scalar(_seen(name, device, seconds, {}).returning(Worker.draining)))

    def leave(self, name: str) -> None:
        """The worker has stopped."""
        with Session(self._engine) as session, session.begin():
            session.execute(delete(Worker).where(Worker.name == name))

    def drain(self, name: str) -> WorkerAccount:
        """Tell a worker to give its job back and to leave.

        Raises:
            WorkerNotFoundError: there is none of this name.
        """
        query = update(Worker).where(Worker.name == name).values(draining=True)
        with Session(self._engine) as session, session.begin():
            if session.scalar(query.returning(Worker.name)) is not None:
                record(session, self._caller, "drain", f"workers/{name}")
        found = [account for account in self.list() if account.worker.name == name]
        if not found:
            raise WorkerNotFoundError(name)
        return found[0]

    def list(self) -> Sequence[WorkerAccount]:
        """All of them, by name; which job each has is told to those for whom it exists."""
        held = (
            select(Attempt.worker, Job.id, Job.owner)
            .join(Job, Job.fencing_token == Attempt.fencing_token)
            .where(Job.state.in_(WITHOUT_WORKER))
            .subquery()
        )
        query = (
            select(Worker, Worker.lost_at < func.now(), held.c.id, held.c.owner)
            .outerjoin(held, held.c.worker == Worker.name)
            .order_by(Worker.name)
        )
        with Session(self._engine) as session:
            rows = session.execute(query).all()
        return [
            WorkerAccount(
                row, _presence(row, lost, job), job if job and self._sees(owner) else None
            )
            for row, lost, job, owner in rows
        ]


def _seen(name: str, device: Device, seconds: float, changes: Mapping[str, Any]) -> Insert:
    """A worker's row as of now; one that is there gets the changes too."""
    has = {
        "device": device.name,
        "device_kind": device.kind,
        "memory_bytes": device.memory_bytes,
        "free_bytes": device.free_bytes,
        "compute_capability": device.compute_capability,
        "device_failed": device.failed,
    }
    row = insert(Worker).values(name=name, lost_at=_from_now(seconds), **has)
    now = {"seen_at": func.now(), "lost_at": row.excluded.lost_at, **has}
    return row.on_conflict_do_update(index_elements=["name"], set_={**now, **changes})


def _presence(worker: Worker, lost: bool, job_id: UUID | None) -> Presence:
    if lost:
        return Presence.LOST
    if worker.draining:
        return Presence.DRAINING
    if worker.device_failed:
        return Presence.DEVICE_FAILED
    return Presence.IDLE if job_id is None else Presence.BUSY


def _from_now(seconds: float) -> ColumnElement[datetime]:
    return func.now() + literal(timedelta(seconds=seconds))
