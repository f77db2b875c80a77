"""What a worker may do to jobs: claim one, renew the lease, and write as the holder.

Every write of an attempt names its fencing token and changes nothing when the token is old; the
clock is the database's. Each public method is one transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Engine, func, literal, select, update
from sqlalchemy.orm import Session

from jobs.errors import LeaseLostError
from jobs.moves import move, tell
from jobs.records import FENCING_TOKEN, Artifact, Attempt, Evaluation, Job
from jobs.request import JobRequest
from jobs.states import JobState


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's hold on a job."""

    job_id: UUID
    fencing_token: int
    attempt: int
    request: JobRequest


class AttemptStore:
    """Jobs as workers see them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def claim(self, *, worker: str, device: str, lease_seconds: float) -> Claim | None:
        """Take the oldest queued job, if any; no two callers get the same one."""
        oldest = (
            select(Job.id)
            .where(Job.state == JobState.QUEUED)
            .order_by(Job.created_at, Job.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        with Session(self._engine) as session, session.begin():
            job_id = session.scalar(oldest)
            if job_id is None:
                return None
            token = session.scalar(select(FENCING_TOKEN.next_value()))
            assert token is not None
            job = session.get_one(Job, job_id)
            attempt = job.attempts + 1
            session.add(
                Attempt(
                    fencing_token=token, job_id=job_id, number=attempt, worker=worker, device=device
                )
            )
            holding = {
                "fencing_token": token,
                "lease_expires_at": _from_now(lease_seconds),
                "attempts": attempt,
                "started_at": func.coalesce(Job.started_at, func.now()),
            }
            data = {"attempt": attempt, "worker": worker, "device": device}
            moved = move(session, job_id, JobState.RUNNING, values=holding, data=data)
            assert moved, "the row is locked and queued"
            return Claim(job_id, token, attempt, JobRequest.model_validate(job.request))

    def renew(self, claim: Claim, lease_seconds: float) -> bool:
        """Renew the lease; whether the job is wished cancelled.

        Raises:
            LeaseLostError: the job is no longer held with this token.
        """
        query = (
            update(Job)
            .where(*_held(claim.job_id, claim.fencing_token))
            .values(lease_expires_at=_from_now(lease_seconds))
            .returning(Job.cancel_requested_at)
        )
        with Session(self._engine) as session, session.begin():
            row = session.execute(query).one_or_none()
        if row is None:
            raise LeaseLostError(claim.job_id, claim.fencing_token)
        return row[0] is not None

    def report(self, claim: Claim, event: str, data: Mapping[str, Any]) -> None:
        """Append an event of the attempt; LeaseLostError when the token is old."""
        with Session(self._engine) as session, session.begin():
            require_held(session, claim.job_id, claim.fencing_token)
            tell(session, claim.job_id, event, data)

    def succeed(self, claim: Claim, result: Mapping[str, Any], files: Sequence[Artifact]) -> None:
        """Publish the files and make the job succeeded, all at once.

        Raises:
            LeaseLostError: the token is old; nothing was published.
        """
        with Session(self._engine) as session, session.begin():
            values = {"result": dict(result), "crashes": 0}
            self._end(session, claim, JobState.SUCCEEDED, values=values, data=result)
            session.add_all(files)

    def fail(self, claim: Claim, error: Mapping[str, Any]) -> None:
        """Make the job failed, with its reason; LeaseLostError when the token is old."""
        with Session(self._engine) as session, session.begin():
            values = {"error": dict(error)}
            self._end(session, claim, JobState.FAILED, values=values, data=error)

    def cancelled(self, claim: Claim) -> None:
        """Make the job cancelled, as was wished; LeaseLostError when the token is old."""
        with Session(self._engine) as session, session.begin():
            self._end(session, claim, JobState.CANCELLED, values={}, data={})

    def release(self, claim: Claim, reason: str) -> None:
        """Give the job back to the queue, not charged; LeaseLostError when the token is old."""
        with Session(self._engine) as session, session.begin():
            data = {"reason": reason}
            self._end(session, claim, JobState.QUEUED, data=data, values={}, event="released")

    def crashed(self, claim: Claim, detail: Mapping[str, Any], crashes_allowed: int) -> bool:
        """Give a job back whose child crashed, or fail it; whether it has failed.

        Crashes count in a row; a mask that the attempt has evaluated starts the count again.

        Raises:
            LeaseLostError: the token is old.
        """
        with Session(self._engine) as session, session.begin():
            progressed = session.scalar(
                select(func.count())
                .select_from(Evaluation)
                .where(
                    Evaluation.job_id == claim.job_id,
                    Evaluation.fencing_token == claim.fencing_token,
                )
            )
            crashes = 1 if progressed else session.get_one(Job, claim.job_id).crashes + 1
            values: dict[str, Any] = {"crashes": crashes}
            poisoned = crashes >= crashes_allowed
            if poisoned:
                values["error"] = {
                    "code": "poisoned",
                    "detail": f"the job's process crashed {crashes} times in a row without "
                    "evaluating a mask; see the log's tail",
                    **detail,
                }
            target = JobState.FAILED if poisoned else JobState.QUEUED
            data = {"crashes": crashes, **detail}
            event = None if poisoned else "crashed"
            self._end(session, claim, target, values=values, data=data, event=event)
        return poisoned

    def expire(self) -> Sequence[UUID]:
        """Take back jobs whose lease has run out: queued again, or cancelled if wished.

        The worker was lost, which is not the job's fault: nothing is charged.
        """
        expired = (
            select(Job)
            .where(Job.state == JobState.RUNNING, Job.lease_expires_at < func.now())
            .with_for_update(skip_locked=True)
        )
        with Session(self._engine) as session, session.begin():
            jobs = session.scalars(expired).all()
            for job in jobs:
                assert job.fencing_token is not None
                wished = job.cancel_requested_at is not None
                _close_attempt(session, job.fencing_token, "lease_expired")
                move(
                    session,
                    job.id,
                    JobState.CANCELLED if wished else JobState.QUEUED,
                    event=None if wished else "lease_expired",
                    data={"attempt": job.attempts},
                    fencing_token=job.fencing_token,
                )
            return [job.id for job in jobs]

    def waiting(self, limit: int) -> Sequence[UUID]:
        """Up to `limit` queued jobs, oldest first."""
        query = (
            select(Job.id)
            .where(Job.state == JobState.QUEUED)
            .order_by(Job.created_at, Job.id)
            .limit(limit)
        )
        with Session(self._engine) as session:
            return session.scalars(query).all()

    def _end(
        self,
        session: Session,
        claim: Claim,
        target: JobState,
        *,
        values: Mapping[str, Any],
        data: Mapping[str, Any],
        event: str | None = None,
    ) -> None:
        token = claim.fencing_token
        if not move(
            session,
            claim.job_id,
            target,
            values=values,
            data={"attempt": claim.attempt, **data},
            event=event,
            fencing_token=token,
        ):
            raise LeaseLostError(claim.job_id, token)
        _close_attempt(session, token, event or str(target))


def _from_now(seconds: float) -> ColumnElement[Any]:
    return func.now() + literal(timedelta(seconds=seconds))


def _held(job_id: UUID, fencing_token: int) -> tuple[ColumnElement[bool], ...]:
    return (
        Job.id == job_id,
        Job.fencing_token == fencing_token,
        Job.state == JobState.RUNNING,
    )


def require_held(session: Session, job_id: UUID, fencing_token: int) -> None:
    """Lock the job's row for this transaction, or raise: no write with an old token passes."""
    held = select(Job.id).where(*_held(job_id, fencing_token)).with_for_update()
    if session.scalar(held) is None:
        raise LeaseLostError(job_id, fencing_token)


def _close_attempt(session: Session, fencing_token: int, outcome: str) -> None:
    session.execute(
        update(Attempt)
        .where(Attempt.fencing_token == fencing_token)
        .values(ended_at=func.now(), outcome=outcome)
        .execution_options(synchronize_session=False)
    )
