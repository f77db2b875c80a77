"""What a worker may do to jobs: claim one, renew the lease, and write as the holder.

Every write of an attempt names its fencing token and changes nothing when the token is old; the
clock is the database's. Each public method is one transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Engine, Select, and_, func, literal, select, update
from sqlalchemy.orm import Session

from jobs.crashes import Crash, CrashLimits
from jobs.devices import Device
from jobs.errors import LeaseLostError
from jobs.fairness import DEFAULT, Fairness
from jobs.moves import move, tell
from jobs.queue import charge, fail_hopeless, next_jobs, overdue, waited, window_closed
from jobs.records import FENCING_TOKEN, Artifact, Attempt, Evaluation, Job, Registration
from jobs.request import JobRequest
from jobs.schedule import WaitingReason
from jobs.states import WITHOUT_WORKER, JobState


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's hold on a job.

    Attributes:
        traceparent: of the job's submission, if that was traced.
    """

    job_id: UUID
    fencing_token: int
    attempt: int
    request: JobRequest
    traceparent: str | None = None

    @property
    def ids(self) -> dict[str, str | int]:
        """What names the attempt in logs and traces."""
        return {
            "job_id": str(self.job_id),
            "attempt": self.attempt,
            "fencing_token": self.fencing_token,
        }


@dataclass(frozen=True, slots=True)
class Renewal:
    """What the holder of a job hears when it renews its lease.

    Attributes:
        state: tells whether the job is wished paused or cancelled.
        window_closed: it shall let go until its window opens.
        missed: its deadline, if that has passed.
    """

    state: JobState
    window_closed: bool = False
    missed: datetime | None = None


class AttemptStore:
    """Jobs as workers see them.

    Args:
        engine: of the database.
        fairness: see `Fairness`.
        registers: whether a registry shall hear of finished models.
    """

    def __init__(
        self, engine: Engine, fairness: Fairness = DEFAULT, *, registers: bool = False
    ) -> None:
        self._engine = engine
        self._fairness = fairness
        self._registers = registers

    def claim(self, *, worker: str, device: Device, lease_seconds: float) -> Claim | None:
        """Take the next job that may run on a device, if any; no two callers get the same one."""
        best = next_jobs(self._fairness, device).limit(1)
        with Session(self._engine) as session, session.begin():
            # One at a time: two at once would both see room for one more of the same owner.
            session.execute(select(func.pg_advisory_xact_lock(_CLAIMING)))
            # Claims are alone, but a client may pause or cancel the job between look and lock.
            while (job_id := session.scalar(best)) is not None:
                if session.scalar(_lock_queued(job_id)) is not None:
                    break
            if job_id is None:
                return None
            token = session.scalar(select(FENCING_TOKEN.next_value()))
            assert token is not None
            job = session.get_one(Job, job_id)
            request = JobRequest.model_validate(job.request)
            attempt = job.attempts + 1
            session.add(
                Attempt(
                    fencing_token=token,
                    job_id=job_id,
                    number=attempt,
                    worker=worker,
                    device=device.name,
                    waited_seconds=session.scalar(select(waited()).where(Job.id == job_id)),
                    tokens_per_mask=request.tokens_per_mask,
                )
            )
            holding = {
                "fencing_token": token,
                "lease_expires_at": _from_now(lease_seconds),
                "attempts": attempt,
                "started_at": func.coalesce(Job.started_at, func.now()),
            }
            data = {"attempt": attempt, "worker": worker, "device": device.name}
            moved = move(session, job_id, JobState.RUNNING, values=holding, data=data)
            assert moved, "the row is locked and queued"
            return Claim(job_id, token, attempt, request, job.traceparent)

    def renew(self, claim: Claim, lease_seconds: float) -> Renewal:
        """Renew the lease, and hear what has changed.

        Raises:
            LeaseLostError: the job is no longer held with this token.
        """
        query = (
            update(Job)
            .where(*_held(claim.job_id, claim.fencing_token))
            .values(lease_expires_at=_from_now(lease_seconds))
            .returning(
                Job.state, and_(window_closed(), ~Job.window_finish), overdue(), Job.deadline
            )
        )
        with Session(self._engine) as session, session.begin():
            row = session.execute(query).one_or_none()
        if row is None:
            raise LeaseLostError(claim.job_id, claim.fencing_token)
        state, closed, late, deadline = row
        return Renewal(JobState(state), closed, deadline if late else None)

    def report(self, claim: Claim, event: str, data: Mapping[str, Any]) -> None:
        """Append an event of the attempt; LeaseLostError when the token is old."""
        with Session(self._engine) as session, session.begin():
            require_held(session, claim.job_id, claim.fencing_token)
            tell(session, claim.job_id, event, data)

    def succeed(
        self, claim: Claim, result: Mapping[str, Any], files: Sequence[Artifact]
    ) -> JobState:
        """Publish the files and make the job succeeded, all at once; the state it came to.

        A job that was wished cancelled is cancelled, and publishes nothing.

        Raises:
            LeaseLostError: the token is old; nothing was published.
        """
        with Session(self._engine) as session, session.begin():
            values = {"result": dict(result), "crashes": 0}
            state = self._end(session, claim, JobState.SUCCEEDED, values=values, data=result)
            if state is JobState.SUCCEEDED:
                session.add_all(files)
                if self._registers:
                    session.add(Registration(job_id=claim.job_id))
        return state

    def fail(self, claim: Claim, error: Mapping[str, Any]) -> JobState:
        """Make the job failed, with its reason, or cancelled, if that was wished.

        Raises:
            LeaseLostError: the token is old.
        """
        with Session(self._engine) as session, session.begin():
            values = {"error": dict(error)}
            return self._end(session, claim, JobState.FAILED, values=values, data=error)

    def release(self, claim: Claim, reason: str) -> JobState:
        """Let go of the job, not charged: queued again, or paused or cancelled, if wished.

        Raises:
            LeaseLostError: the token is old.
        """
        with Session(self._engine) as session, session.begin():
            state = require_held(session, claim.job_id, claim.fencing_token)
            self._let_go(session, claim.job_id, claim.fencing_token, state, reason, {})
            return WITHOUT_WORKER[state]

    def hold(self, claim: Claim, reason: WaitingReason, seconds: float) -> JobState:
        """As `release`, and nobody takes the job for so long.

        Raises:
            LeaseLostError: the token is old.
        """
        with Session(self._engine) as session, session.begin():
            state = require_held(session, claim.job_id, claim.fencing_token)
            values = _held_back(reason, seconds)
            token = claim.fencing_token
            self._let_go(session, claim.job_id, token, state, str(reason), {}, values)
            return WITHOUT_WORKER[state]

    def crashed(
        self,
        claim: Claim,
        detail: Mapping[str, Any],
        limits: CrashLimits,
        crash: Crash = Crash.CRASHED,
    ) -> JobState:
        """Let go of a job whose child ended as it should not, or fail it; the state it came to.

        Crashes count in a row; a mask evaluated since the last of them starts the count again.

        Raises:
            LeaseLostError: the token is old.
        """
        with Session(self._engine) as session, session.begin():
            state = require_held(session, claim.job_id, claim.fencing_token)
            # By whichever attempt since the last crash: one that was drained in between counts too.
            last_crash = (
                select(func.coalesce(func.max(Attempt.fencing_token), 0))
                .where(Attempt.job_id == claim.job_id, Attempt.outcome.in_(list(map(str, Crash))))
                .scalar_subquery()
            )
            progressed = session.scalar(
                select(func.count())
                .select_from(Evaluation)
                .where(Evaluation.job_id == claim.job_id, Evaluation.fencing_token > last_crash)
            )
            crashes = 1 if progressed else session.get_one(Job, claim.job_id).crashes + 1
            data = {"crashes": crashes, **detail}
            if crashes < limits.in_a_row or state is JobState.CANCELLING:
                wait = limits.backoff_seconds * 2 ** (crashes - 1)
                values = {"crashes": crashes, **_held_back(WaitingReason.RETRY_BACKOFF, wait)}
                token = claim.fencing_token
                self._let_go(session, claim.job_id, token, state, crash, data, values)
                return WITHOUT_WORKER[state]
            error = {
                "code": crash.code,
                "detail": f"the job's process {crash.words} once more: "
                f"{crashes} times in a row it has ended so without evaluating a mask; see the "
                "log's tail",
                **detail,
            }
            values = {"crashes": crashes, "error": error}
            return self._end(session, claim, JobState.FAILED, values=values, data=data)

    def outcome(self, claim: Claim) -> str | None:
        """Why the attempt ended; None while it holds the job."""
        with Session(self._engine) as session:
            return session.get_one(Attempt, claim.fencing_token).outcome

    def expire(self) -> Sequence[UUID]:
        """Take back jobs whose lease has run out: as `release`.

        The worker was lost, which is not the job's fault: nothing is charged.
        """
        expired = (
            select(Job)
            .where(Job.state.in_(WITHOUT_WORKER), Job.lease_expires_at < func.now())
            .with_for_update(skip_locked=True)
        )
        with Session(self._engine) as session, session.begin():
            # In this order, so that two sweepers never wait for each other's owners.
            jobs = sorted(session.scalars(expired), key=lambda job: job.owner)
            for job in jobs:
                assert job.fencing_token is not None
                state = JobState(job.state)
                self._let_go(session, job.id, job.fencing_token, state, "lease_expired", {})
            return [job.id for job in jobs]

    def fail_hopeless(self) -> Sequence[UUID]:
        """Fail jobs that nobody holds and that will not run; see `jobs.queue`."""
        with Session(self._engine) as session, session.begin():
            return fail_hopeless(session)

    def _end(
        self,
        session: Session,
        claim: Claim,
        target: JobState,
        *,
        values: Mapping[str, Any],
        data: Mapping[str, Any],
    ) -> JobState:
        """Bring the job to a final state: `target`, unless it was wished cancelled."""
        token = claim.fencing_token
        state = require_held(session, claim.job_id, token)
        if state is JobState.CANCELLING:
            self._let_go(session, claim.job_id, token, state, str(target), {})
            return JobState.CANCELLED
        data = {"attempt": claim.attempt, **data}
        move(session, claim.job_id, target, values=values, data=data, fencing_token=token)
        self._close_attempt(session, claim.job_id, token, str(target))
        return target

    def _let_go(
        self,
        session: Session,
        job_id: UUID,
        fencing_token: int,
        state: JobState,
        reason: str,
        data: Mapping[str, Any],
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """Bring a held, locked job to where it goes without its worker; the reason is told."""
        target = WITHOUT_WORKER[state]
        attempt = self._close_attempt(session, job_id, fencing_token, reason)
        move(
            session,
            job_id,
            target,
            event=_RETURNS.get(reason, "released") if target is JobState.QUEUED else None,
            data={"attempt": attempt, "reason": reason, **data},
            values=values,
            fencing_token=fencing_token,
        )

    def _close_attempt(
        self, session: Session, job_id: UUID, fencing_token: int, outcome: str
    ) -> int:
        """Write why an attempt ended, and charge its owner for the device; its number."""
        number, started_at = session.execute(
            update(Attempt)
            .where(Attempt.fencing_token == fencing_token)
            .values(ended_at=func.now(), outcome=outcome)
            .returning(Attempt.number, Attempt.started_at)
            .execution_options(synchronize_session=False)
        ).one()
        seconds = func.extract("epoch", func.now() - literal(started_at))
        charge(session, job_id, seconds, self._fairness)
        return int(number)


_CLAIMING = 0x626F6E736169
"""Names the lock that claims take in turn."""

_RETURNS = {
    name: name for name in (*map(str, Crash), "disk_full", "storage_unavailable", "lease_expired")
}
"""Events of a return to the queue that say more than `released`."""


def _lock_queued(job_id: UUID) -> Select[UUID]:
    return select(Job.id).where(Job.id == job_id, Job.state == JobState.QUEUED).with_for_update()


def _held_back(reason: WaitingReason, seconds: float) -> dict[str, Any]:
    return {"held_until": _from_now(seconds), "hold_reason": str(reason)}


def _from_now(seconds: float) -> ColumnElement[Any]:
    return func.now() + literal(timedelta(seconds=seconds))


def _held(job_id: UUID, fencing_token: int) -> tuple[ColumnElement[bool], ...]:
    return (
        Job.id == job_id,
        Job.fencing_token == fencing_token,
        Job.state.in_(WITHOUT_WORKER),
    )


def require_held(session: Session, job_id: UUID, fencing_token: int) -> JobState:
    """Lock the job's row for this transaction; its state. No write with an old token passes.

    Raises:
        LeaseLostError: the token is old.
    """
    held = select(Job.state).where(*_held(job_id, fencing_token)).with_for_update()
    state = session.scalar(held)
    if state is None:
        raise LeaseLostError(job_id, fencing_token)
    return JobState(state)
