"""Removing what is not kept any longer of jobs that have ended.

Files, ledger and logs of a job expire together; the job itself, its events and attempts stay. It is
announced by an event some time before, and a pinned job is kept whatever its age. Keys by which
jobs were submitted go by their own age.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Engine,
    case,
    delete,
    false,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy.orm import Session, aliased

from jobs.artifacts import ArtifactStore, files_prefix
from jobs.audit import record
from jobs.dead_uploads import remove_dead_uploads
from jobs.idempotency import forget_old
from jobs.moves import tell
from jobs.records import Attempt, Evaluation, Job, LogLine, Round
from jobs.retention import Retention
from jobs.roles import OnBehalf
from jobs.stored_bytes import bytes_of


class Why(StrEnum):
    """Why a job is not kept any longer."""

    AGE = "age"
    COUNT = "count"


@dataclass(frozen=True, slots=True)
class Expiry:
    """A job that is not kept any longer.

    Attributes:
        due_at: when it goes; None: it has not been announced yet.
        size_bytes: of its result and its checkpoints.
        is_due: whether it goes, or went, now.
    """

    job_id: UUID
    name: str | None
    owner: str
    finished_at: datetime
    why: Why
    due_at: datetime | None
    size_bytes: int
    is_due: bool


class Collector(OnBehalf):
    """Announces what will expire, and removes what has."""

    def __init__(self, engine: Engine, files: ArtifactStore, retention: Retention) -> None:
        self._engine = engine
        self._files = files
        self._retention = retention

    def due(self) -> Sequence[Expiry]:
        """What `collect` would announce or remove now, the oldest first; nothing is changed."""
        with Session(self._engine) as session:
            rows = [dict(row) for row in session.execute(self._query()).mappings()]
        return [Expiry(**row | {"why": Why(row["why"])}) for row in rows]

    def collect(self) -> Sequence[Expiry]:
        """Announce and remove; what `due` was before."""
        found = self.due()
        with Session(self._engine) as session, session.begin():
            forget_old(session)
            removed = [str(expiry.job_id) for expiry in found if expiry.is_due]
            record(session, self._caller, "gc", None, removed=removed)
        for expiry in found:
            if expiry.is_due:
                self._remove(expiry)
            elif expiry.due_at is None:
                self._announce(expiry)
        remove_dead_uploads(self._engine, self._files)
        return found

    def _announce(self, expiry: Expiry) -> None:
        with Session(self._engine) as session, session.begin():
            job = self._still(session, expiry)
            if job is not None:
                notice = timedelta(hours=self._retention.notice_hours)
                job.expires_at = session.scalar(select(func.now() + notice))
                assert job.expires_at is not None
                session.flush()
                data = {"expires_at": job.expires_at.isoformat(), "why": expiry.why}
                tell(session, job.id, "expiry_announced", data)

    def _remove(self, expiry: Expiry) -> None:
        with Session(self._engine) as session, session.begin():
            job = self._still(session, expiry)
            if job is None:
                return
            # The files first: what is interrupted here is done again, and nothing is left behind.
            self._files.delete(files_prefix(job.id))
            for table in (Evaluation, Round):
                session.execute(delete(table).where(table.job_id == job.id))
            attempts = select(Attempt.fencing_token).where(Attempt.job_id == job.id)
            session.execute(delete(LogLine).where(LogLine.fencing_token.in_(attempts)))
            job.expired_at = session.scalar(select(func.now()))
            session.flush()
            tell(session, job.id, "expired", {"size_bytes": expiry.size_bytes, "why": expiry.why})

    def _still(self, session: Session, expiry: Expiry) -> Job | None:
        """The job, locked; None where it is not as it was: pinned, retried, announced or gone."""
        job = session.get_one(Job, expiry.job_id, with_for_update=True)
        due = self._query().subquery()
        again = select(due.c.job_id).where(
            due.c.job_id == job.id, due.c.due_at.is_not_distinct_from(expiry.due_at)
        )
        return job if session.scalar(again) else None

    def _query(self) -> Any:
        rank = func.row_number().over(partition_by=Job.owner, order_by=Job.finished_at.desc())
        again = aliased(Job)
        # A retry goes on from the files of the job that it retries.
        needed = (
            select(again.id)
            .where(again.retry_of == Job.id, again.finished_at.is_(None))
            .correlate(Job)
            .exists()
        )
        kept = (
            select(Job, rank.label("rank"), needed.label("needed"))
            .where(Job.finished_at.is_not(None), Job.expired_at.is_(None), ~Job.pinned)
            .subquery()
        )
        ended = aliased(Job, kept)
        old, many = self._is_old(ended), self._are_many(kept.c.rank)
        return (
            select(
                ended.id.label("job_id"),
                ended.name.label("name"),
                ended.owner.label("owner"),
                ended.finished_at.label("finished_at"),
                case((old, literal(str(Why.AGE))), else_=literal(str(Why.COUNT))).label("why"),
                ended.expires_at.label("due_at"),
                bytes_of(ended.id).label("size_bytes"),
                func.coalesce(ended.expires_at <= func.now(), false()).label("is_due"),
            )
            .where(or_(old, many), ~kept.c.needed)
            .order_by(ended.finished_at, ended.id)
        )

    def _is_old(self, job: type[Job]) -> ColumnElement[bool]:
        if self._retention.days is None:
            return false()
        return job.finished_at < func.now() - timedelta(days=self._retention.days)

    def _are_many(self, rank: ColumnElement[int]) -> ColumnElement[bool]:
        if self._retention.per_owner is None:
            return false()
        return rank > self._retention.per_owner
