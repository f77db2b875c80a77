"""Models that a registry shall hear of: due with the success of their job, tried until it has.

A row is inserted in the transaction that makes the job succeeded, so none is forgotten. What comes
of it is told by events of the job, whose state never depends on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from os.path import commonpath
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, func, literal, select
from sqlalchemy.orm import Session

from jobs.moves import tell
from jobs.records import Artifact, Job, Registration, Round

_TAKEN_SECONDS = 600
"""Who has taken one and says nothing for so long has been lost."""

_FIRST_WAIT_SECONDS = 30
_LONGEST_WAIT_SECONDS = 6 * 3600


@dataclass(frozen=True, slots=True)
class FinishedModel:
    """What a registry is told of a job that has succeeded.

    Attributes:
        job: its row.
        rounds: what each decided and measured, in order.
        folder: of the artifact store, with all published files.
        size_bytes: of these.
    """

    job: Job
    rounds: Sequence[Mapping[str, Any]]
    folder: str
    size_bytes: int


class RegistrationStore:
    """The registrations' rows. Each public method is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def take(self) -> UUID | None:
        """The job that has been due for longest, if any; nobody else gets it for ten minutes."""
        due = (
            select(Registration)
            .where(Registration.due_at <= func.now())
            .order_by(Registration.due_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        with Session(self._engine) as session, session.begin():
            row = session.scalar(due)
            if row is None:
                return None
            row.tries += 1
            row.due_at = func.now() + literal(timedelta(seconds=_TAKEN_SECONDS))
            return row.job_id

    def model(self, job_id: UUID) -> FinishedModel:
        """What there is to tell of a job."""
        rounds = select(Round.record).where(Round.job_id == job_id, Round.record.is_not(None))
        with Session(self._engine) as session:
            files = session.scalars(select(Artifact).where(Artifact.job_id == job_id)).all()
            return FinishedModel(
                job=session.get_one(Job, job_id),
                rounds=[it for it in session.scalars(rounds.order_by(Round.number)) if it],
                folder=commonpath([file.key.rpartition("/")[0] for file in files]),
                size_bytes=sum(file.size_bytes for file in files),
            )

    def done(self, job_id: UUID, place: Mapping[str, Any]) -> None:
        """The registry has it; `place` says where."""
        with Session(self._engine) as session, session.begin():
            row = session.get_one(Registration, job_id, with_for_update=True)
            row.due_at, row.error = None, None
            tell(session, job_id, "registered", place)

    def failed(self, job_id: UUID, error: str) -> float:
        """It is due again after so many seconds, more each time. The first failure is an event."""
        with Session(self._engine) as session, session.begin():
            row = session.get_one(Registration, job_id, with_for_update=True)
            doubled = _FIRST_WAIT_SECONDS * 2.0 ** min(row.tries - 1, 16)
            wait = min(_LONGEST_WAIT_SECONDS, doubled)
            row.due_at = func.now() + literal(timedelta(seconds=wait))
            if row.error is None:
                tell(session, job_id, "registration_failed", {"error": error})
            row.error = error
        return wait
