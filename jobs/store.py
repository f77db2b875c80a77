"""Every query on jobs and every guarded change of their state that a client may cause.

Each public method is one transaction. What an attempt may write is in `jobs.attempts`.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Engine, Select, func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from jobs.audit import record
from jobs.batch import BatchRequest
from jobs.cursors import cursor_of, number_place
from jobs.datasets import require_dataset
from jobs.errors import (
    ArtifactNotFoundError,
    BatchNotFoundError,
    IllegalMoveError,
    JobNotFoundError,
    NotWaitingError,
    QuotaExceededError,
    UnknownDependencyError,
)
from jobs.fairness import DEFAULT, Fairness
from jobs.idempotency import SubmissionKey, made_by, take
from jobs.job_change import WAITING, JobChange
from jobs.ledger import inherit
from jobs.listing import JobFilter, JobSort, in_order, next_cursor
from jobs.moves import move, tell
from jobs.origin import current_origin
from jobs.pages import newest_first
from jobs.queue import Fit, Place, Waiting, fits, lengths, places, standing
from jobs.quota import require_disk
from jobs.records import Artifact, Attempt, Batch, Evaluation, Event, Job, LogLine
from jobs.request import JobRequest, owned
from jobs.roles import OnBehalf
from jobs.rounds import RoundAccount, accounts
from jobs.schedule import AtClose
from jobs.schema import require_schema
from jobs.speeds import Sample, samples
from jobs.states import WISHES, WITHOUT_WORKER, JobState, Wish


@dataclass(frozen=True, slots=True)
class JobPage:
    """Some jobs, and the cursor of those that follow."""

    items: Sequence[Job]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events of a job, oldest first.

    Attributes:
        next_cursor: of those that follow, if there are any by now.
        last_cursor: of those that follow, also where they are still to come.
        job_state: by then; all that a job had come through when it was in this state is here, or
            follows.
    """

    items: Sequence[Event]
    next_cursor: str | None
    last_cursor: str
    job_state: JobState


@dataclass(frozen=True, slots=True)
class Glance:
    """What tells whether there is news of a job.

    Attributes:
        last_event: its sequence.
        fencing_token: of the attempt that holds the job.
        last_line: number of the last stored line of that attempt's log; 0: none.
    """

    last_event: int
    state: JobState
    progress: Mapping[str, Any]
    fencing_token: int | None
    last_line: int


@dataclass(frozen=True, slots=True)
class AttemptAccount:
    """An attempt, and how far it came: round and trial of the last mask it evaluated."""

    attempt: Attempt
    last_mask: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a submission would come to.

    Attributes:
        place: where the job would stand in the queue.
        fits: which workers could take it.
        samples: what jobs so far have shown of devices.
    """

    place: Place
    fits: Sequence[Fit]
    samples: Sequence[Sample]


@dataclass(frozen=True, slots=True)
class Queue:
    """What runs and what waits.

    Attributes:
        running: jobs, each with its worker.
        waiting: jobs that the caller sees, each with its place among all.
        lengths: all that waits, by reason.
    """

    running: Sequence[tuple[Job, str]]
    waiting: Sequence[tuple[Job, Place]]
    lengths: Sequence[Waiting]


@dataclass(frozen=True, slots=True)
class BatchPage:
    """Some batches, newest first, each with its jobs by state, and the cursor of those that
    follow."""

    items: Sequence[tuple[Batch, Mapping[JobState, int]]]
    next_cursor: str | None


EVERY = JobFilter()


class JobStore(OnBehalf):
    """Jobs and batches as clients see them."""

    def __init__(self, engine: Engine, fairness: Fairness = DEFAULT) -> None:
        self._engine = engine
        self._fairness = fairness

    def ping(self) -> str:
        """The revision of the database's tables, of this code or newer.

        Raises:
            SchemaOutdatedError: they are older than the code.
            SQLAlchemyError: there was no answer.
        """
        with Session(self._engine) as session:
            return require_schema(session)

    def submit(self, request: JobRequest) -> Job:
        """Insert a queued job and its first event.

        Raises:
            WrongOwnerError: the caller may not submit for the owner that is named.
            UnknownDependencyError: the job to wait for does not exist, or will not succeed.
            QuotaExceededError: the owner has too many jobs waiting, or too much on the disk.
        """
        return self.submit_once(request, None)[0]

    def submit_once(self, request: JobRequest, key: SubmissionKey | None) -> tuple[Job, bool]:
        """As `submit`; a second call with the same key gives the same job, and True.

        Raises:
            IdempotencyKeyReusedError: the key has submitted another request.
        """
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            new_id = uuid4()
            request = owned(request, self._caller)
            made_id = take(session, self._keys_of, key, new_id)
            if made_id != new_id:
                return self._existing(session, made_id), True
            (job,) = self._insert_all(session, [request], job_id=new_id)
            self._record(session, "submit", job)
            session.refresh(job)
        return job, False

    def submit_batch_once(
        self, batch: BatchRequest, key: SubmissionKey | None
    ) -> tuple[Batch, bool]:
        """Insert a batch with all its jobs, or nothing; a second call with the same key gives the
        same batch, and True.

        Raises:
            IdempotencyKeyReusedError: the key has submitted another request.
            UnknownDependencyError: a job waits for one that does not exist, or will not succeed.
            QuotaExceededError: an owner would have too many jobs waiting.
        """
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            new_id = uuid4()
            requests = [owned(request, self._caller) for request in batch.requests()]
            made_id = take(session, self._keys_of, key, new_id)
            if made_id != new_id:
                return self._existing_batch(session, made_id), True
            row = Batch(id=new_id, name=batch.name)
            session.add(row)
            session.flush()
            self._insert_all(session, requests, batch_id=row.id)
            record(session, self._caller, "submit", f"batches/{row.id}", jobs=len(requests))
            session.refresh(row)
        return row, False

    def rehearse(self, requests: Sequence[JobRequest]) -> list[Rehearsal]:
        """Submit jobs, see where each stands and who could take it, and take it all back.

        Raises:
            UnknownDependencyError, QuotaExceededError: as when they are submitted.
        """
        with Session(self._engine, expire_on_commit=False) as session:
            jobs = self._insert_all(session, [owned(each, self._caller) for each in requests])
            known = samples(session)
            standing = places(session, self._fairness, [job.id for job in jobs])
            # Without a commit nothing of it stays.
            return [Rehearsal(standing[job.id], fits(session, job.id), known) for job in jobs]

    def _insert_all(
        self,
        session: Session,
        requests: Sequence[JobRequest],
        *,
        job_id: UUID | None = None,
        batch_id: UUID | None = None,
    ) -> list[Job]:
        """Insert jobs that their owners have room for, and whose dependencies exist; the id is for
        a single one."""
        for owner, count in sorted(Counter(request.owner for request in requests).items()):
            self._require_room(session, owner, count)
        jobs = []
        for request in requests:
            self._require_dependency(session, request.schedule.after)
            jobs.append(_insert(session, request, job_id=job_id, batch_id=batch_id))
        return jobs

    def has_submitted(self, key: SubmissionKey | None) -> bool:
        """Whether a job or a batch was submitted with this key; without a key, none was.

        Raises:
            IdempotencyKeyReusedError: it was another request.
        """
        with Session(self._engine) as session:
            return made_by(session, self._keys_of, key) is not None

    def batch(self, batch_id: UUID) -> tuple[Batch, Sequence[Job]]:
        """A batch and its jobs, in the order of the request; BatchNotFoundError if there is none.

        Retries belong to the batch of the job that they retry.
        """
        query = self._jobs().where(Job.batch_id == batch_id).order_by(Job.created_at, Job.id)
        with Session(self._engine) as session:
            return self._existing_batch(session, batch_id), session.scalars(query).all()

    def cancel_batch(self, batch_id: UUID) -> None:
        """Cancel every job of a batch that has not ended; BatchNotFoundError if there is none."""
        # In this order, so that two calls never wait for each other.
        query = self._jobs().where(Job.batch_id == batch_id).order_by(Job.id).with_for_update()
        with Session(self._engine) as session, session.begin():
            self._existing_batch(session, batch_id)
            cancelled = 0
            for job in session.scalars(query).all():
                state = JobState(job.state)
                target = WISHES[Wish.CANCEL].get(state, state)
                if target is not state:
                    cancelled += 1
                    move(session, job.id, target, data={"batch": str(batch_id)})
            if cancelled:
                record(session, self._caller, "cancel", f"batches/{batch_id}", jobs=cancelled)

    def show(self, job_id: UUID) -> Job:
        """One job; JobNotFoundError when there is none."""
        with Session(self._engine) as session:
            return self._existing(session, job_id)

    def glance(self, job_id: UUID) -> Glance:
        """A look at one job; JobNotFoundError when there is none."""
        found = self.glances([job_id])
        if job_id not in found:
            raise JobNotFoundError(job_id)
        return found[job_id]

    def glances(self, job_ids: Collection[UUID]) -> Mapping[UUID, Glance]:
        """A look at many jobs in one query; those that do not exist are left out."""
        last_line = (
            select(func.max(LogLine.number))
            .where(LogLine.fencing_token == Job.fencing_token)
            .correlate(Job)
            .scalar_subquery()
        )
        columns = (Job.id, Job.last_event, Job.state, Job.progress, Job.fencing_token, last_line)
        query = self._jobs().where(Job.id.in_(job_ids)).with_only_columns(*columns)
        with Session(self._engine) as session:
            rows = session.execute(query).all()
        return {
            job_id: Glance(last_event, JobState(state), progress, token, line or 0)
            for job_id, last_event, state, progress, token, line in rows
        }

    def places(self, jobs: Iterable[Job]) -> Mapping[UUID, Place]:
        """Where jobs stand in the queue, those of them that are queued."""
        queued = [job.id for job in jobs if job.state == JobState.QUEUED]
        if not queued:
            return {}
        with Session(self._engine) as session:
            return places(session, self._fairness, queued)

    def _require_room(self, session: Session, owner: str, jobs: int = 1) -> None:
        require_disk(session, owner, self._fairness.disk_per_owner)
        allowed = self._fairness.queued_per_owner
        if allowed is None:
            return
        # Two requests at once would both see room for one more.
        session.execute(select(func.pg_advisory_xact_lock(_SUBMITTING, func.hashtext(owner))))
        of_owner = (Job.owner == owner, Job.state == JobState.QUEUED)
        queued = session.scalar(select(func.count()).select_from(Job).where(*of_owner)) or 0
        if queued + jobs > allowed:
            cure = "cancel some, or wait until some have run"
            raise QuotaExceededError(owner, f"{queued} jobs that wait", allowed, cure)

    def list(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        wanted: JobFilter = EVERY,
        sort: JobSort = JobSort.NEWEST,
    ) -> JobPage:
        """Up to `limit` jobs of those wanted, in this order, after the place that `cursor` names.

        Raises:
            InvalidCursorError: `cursor` was not made by this method, for the same order.
        """
        query = in_order(wanted.of(self._jobs()), sort, cursor).limit(limit + 1)
        with Session(self._engine) as session:
            jobs = session.scalars(query).all()
        more = len(jobs) > limit
        return JobPage(jobs[:limit], next_cursor(jobs[limit - 1], sort) if more else None)

    def batches(self, *, limit: int, cursor: str | None = None) -> BatchPage:
        """Up to `limit` batches, newest first, each with its jobs by state.

        Raises:
            InvalidCursorError: `cursor` was not made by this method.
        """
        of_caller = self._jobs().where(Job.batch_id == Batch.id).exists()
        with Session(self._engine) as session:
            page = newest_first(session, Batch, select(Batch).where(of_caller), limit, cursor)
            counts = self._counts(session, [row.id for row in page.items])
        return BatchPage([(row, counts[row.id]) for row in page.items], page.next_cursor)

    def _counts(
        self, session: Session, batch_ids: Sequence[UUID]
    ) -> Mapping[UUID, Mapping[JobState, int]]:
        found: dict[UUID, dict[JobState, int]] = {batch_id: {} for batch_id in batch_ids}
        query = self._jobs().with_only_columns(Job.batch_id, Job.state, func.count())
        query = query.where(Job.batch_id.in_(batch_ids)).group_by(Job.batch_id, Job.state)
        for batch_id, state, count in session.execute(query):
            found[UUID(str(batch_id))][JobState(state)] = count
        return found

    def edit(self, job_id: UUID, change: JobChange) -> Job:
        """Change what people say of a job, or its priority while it waits.

        Raises:
            JobNotFoundError: there is no such job.
            NotWaitingError: another priority was given to a job that does not wait.
        """
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            job = self._existing(session, job_id, lock=True)
            if change.priority is not None and JobState(job.state) not in WAITING:
                raise NotWaitingError(job_id, JobState(job.state))
            values = {name: it for name, it in change.values.items() if getattr(job, name) != it}
            if values:
                for name, value in values.items():
                    setattr(job, name, value)
                session.flush()
                changed = sorted(name.rstrip("_") for name in values)
                tell(session, job_id, "edited", {"changed": changed})
                self._record(session, "edit", job, changed=changed)
            session.refresh(job)
        return job

    def ask(self, job_id: UUID, wish: Wish) -> Job:
        """Pause, resume or cancel: at once where no worker holds the job, else by its worker.

        A second call changes nothing. Cancel wins over pause.

        Raises:
            JobNotFoundError: there is no such job.
            IllegalMoveError: the job's state does not allow it.
        """
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            job = self._existing(session, job_id, lock=True)
            state, target = _answer(job, wish)
            if target is not state:
                event = "resumed" if wish is Wish.RESUME else None
                move(session, job_id, target, event=event, data={})
                self._record(session, str(wish), job)
            session.refresh(job)
        return job

    def retry(self, job_id: UUID) -> Job:
        """A new job that goes on from what a failed or cancelled one has evaluated.

        If its inputs have changed since, it starts anew. A second call gives the same job.

        Raises:
            JobNotFoundError: there is no such job.
            IllegalMoveError: the job has not failed, and was not cancelled.
        """
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            job = self._existing(session, job_id, lock=True)
            _answer(job, Wish.RETRY)
            again = session.scalar(select(Job).where(Job.retry_of == job_id))
            if again is None:
                self._require_room(session, job.owner)
                again = _insert(session, _as_edited(job), retry_of=job)
                inherit(session, job, again)
                tell(session, job_id, "retried", {"job": str(again.id)})
                self._record(session, "retry", job, made=str(again.id))
            session.refresh(again)
        return again

    def pin(self, job_id: UUID, *, pinned: bool) -> Job:
        """Keep the files of a job whatever its age, or no longer; a second call changes nothing.

        Raises:
            JobNotFoundError: there is no such job.
        """
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            job = self._existing(session, job_id, lock=True)
            if job.pinned is not pinned:
                # Another notice is given if it is unpinned.
                job.pinned, job.expires_at = pinned, None
                session.flush()
                tell(session, job_id, "pinned" if pinned else "unpinned", {})
                self._record(session, "pin" if pinned else "unpin", job)
            session.refresh(job)
        return job

    def events(self, job_id: UUID, *, limit: int, cursor: str | None = None) -> EventPage:
        """Up to `limit` events of a job after `cursor`, oldest first.

        Raises:
            JobNotFoundError: there is no such job.
            InvalidCursorError: `cursor` was not made by this method.
        """
        after = number_place(cursor) if cursor is not None else 0
        query = (
            select(Event)
            .where(Event.job_id == job_id, Event.sequence > after)
            .order_by(Event.sequence)
            .limit(limit + 1)
        )
        with Session(self._engine) as session:
            # The state first: what happens in between is then in the page, and not in the state.
            state = JobState(self._existing(session, job_id).state)
            events = session.scalars(query).all()
        items, more = events[:limit], len(events) > limit
        last_cursor = cursor_of([items[-1].sequence if items else after])
        return EventPage(items, last_cursor if more else None, last_cursor, state)

    def attempts(self, job_id: UUID) -> Sequence[AttemptAccount]:
        """Every attempt at a job, the first one first; JobNotFoundError when there is no such."""
        last = (
            select(Evaluation.fencing_token, Evaluation.round, Evaluation.trial)
            .ext(distinct_on(Evaluation.fencing_token))
            .where(Evaluation.job_id == job_id)
            .order_by(Evaluation.fencing_token, Evaluation.round.desc(), Evaluation.at.desc())
        )
        attempts = select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number)
        with Session(self._engine) as session:
            self._existing(session, job_id)
            ends = {token: (number, trial) for token, number, trial in session.execute(last)}
            return [
                AttemptAccount(attempt, ends.get(attempt.fencing_token))
                for attempt in session.scalars(attempts)
            ]

    def rounds(self, job_id: UUID) -> Sequence[RoundAccount]:
        """What each round of a job did, the first one first; JobNotFoundError when there is no such
        job."""
        with Session(self._engine) as session:
            self._existing(session, job_id)
            return accounts(session, job_id)

    def queue(self, *, limit: int) -> Queue:
        """What runs, and the first jobs that wait, in the order in which they would be taken."""
        held = (
            self._jobs()
            .add_columns(Attempt.worker)
            .join(Attempt, Attempt.fencing_token == Job.fencing_token)
            .where(Job.state.in_(WITHOUT_WORKER))
            .order_by(Job.started_at, Job.id)
        )
        with Session(self._engine) as session:
            found = standing(session, self._fairness, self._only_owner, limit)
            jobs = {job.id: job for job in session.scalars(self._jobs().where(Job.id.in_(found)))}
            return Queue(
                running=[(job, worker) for job, worker in session.execute(held.limit(limit))],
                # A job that is gone since has left the queue.
                waiting=[
                    (jobs[job_id], place) for job_id, place in found.items() if job_id in jobs
                ],
                lengths=lengths(session, self._fairness),
            )

    def artifacts(self, job_id: UUID) -> Sequence[Artifact]:
        """The published files of a job by name; none before it has succeeded."""
        with Session(self._engine) as session:
            self._existing(session, job_id)
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

    def _jobs(self) -> Select[Job]:
        """The jobs that exist for the caller."""
        query = select(Job)
        owner = self._only_owner
        return query if owner is None else query.where(Job.owner == owner)

    def _existing(self, session: Session, job_id: UUID, *, lock: bool = False) -> Job:
        job = session.get(Job, job_id, with_for_update=lock or None)
        if job is None or not self._sees(job.owner):
            raise JobNotFoundError(job_id)
        return job

    def _existing_batch(self, session: Session, batch_id: UUID) -> Batch:
        batch = session.get(Batch, batch_id)
        # Whose it is, is for its jobs to say.
        of_caller = self._jobs().where(Job.batch_id == batch_id).exists()
        if batch is None or not session.scalar(select(of_caller)):
            raise BatchNotFoundError(batch_id)
        return batch

    def _require_dependency(self, session: Session, after: UUID | None) -> None:
        if after is None:
            return
        # Locked, so that it does not end between the look and the insert.
        query = self._jobs().where(Job.id == after).with_for_update(read=True)
        state = session.scalar(query.with_only_columns(Job.state))
        if state is None or state in (JobState.FAILED, JobState.CANCELLED):
            raise UnknownDependencyError(after, state)

    @property
    def _keys_of(self) -> str:
        """Whose submission keys the caller's are."""
        return self._caller.owner if self._caller else "default"

    def _record(self, session: Session, action: str, job: Job, **details: Any) -> None:
        record(session, self._caller, action, f"jobs/{job.id}", owner=job.owner, **details)


_SUBMITTING = 0x626F6E73
"""With an owner's hash, names the lock that submissions under a quota take in turn."""


def _as_edited(job: Job) -> JobRequest:
    """What was asked, under what people say of it now."""
    said = {"name": job.name, "labels": job.labels, "metadata": job.metadata_}
    return JobRequest.model_validate({**job.request, **said})


def _insert(
    session: Session,
    request: JobRequest,
    *,
    job_id: UUID | None = None,
    retry_of: Job | None = None,
    batch_id: UUID | None = None,
) -> Job:
    schedule, window, origin = request.schedule, request.schedule.window, current_origin()
    job = Job(
        id=job_id or uuid4(),
        # Not the transaction's time, which is the same for all jobs of a batch.
        created_at=func.clock_timestamp(),
        queued_at=func.clock_timestamp(),
        owner=request.owner,
        priority=schedule.priority.level,
        not_before=schedule.not_before,
        deadline=schedule.deadline,
        after=schedule.after,
        window_opens=window and window.opens,
        window_closes=window and window.closes,
        window_zone=window and window.zone,
        window_days=window and [day.number for day in window.days],
        window_finish=window is not None and window.at_close is AtClose.FINISH,
        device_kind=request.device.kind,
        memory_bytes=request.device.memory_bytes,
        streamed_memory_bytes=request.device.streamed_memory_bytes,
        name=request.name,
        labels=request.labels,
        metadata_=request.metadata,
        dataset_id=require_dataset(session, request),
        request=request.model_dump(mode="json"),
        state=JobState.QUEUED,
        progress={},
        retry_of=retry_of and retry_of.id,
        batch_id=retry_of.batch_id if retry_of else batch_id,
        traceparent=origin.traceparent,
    )
    session.add(job)
    session.flush()
    said = {"retry_of": retry_of and str(retry_of.id), "request_id": origin.request_id}
    known = {name: value for name, value in said.items() if value is not None}
    tell(session, job.id, "submitted", known)
    return job


def _answer(job: Job, wish: Wish) -> tuple[JobState, JobState]:
    """The state of a job, and what a wish makes of it; IllegalMoveError where it is not legal."""
    state = JobState(job.state)
    if state not in WISHES[wish]:
        raise IllegalMoveError(job.id, state, wish)
    return state, WISHES[wish][state]
