"""The queue: which job is next, why another waits, and which will never run.

The order is one SQL expression, on the database's clock: higher priority first, lifted by one level
for every `ageing_seconds` of waiting; then the owner who has used least of the devices lately; then
the older job.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Date,
    DateTime,
    Select,
    Subquery,
    Time,
    and_,
    any_,
    bindparam,
    case,
    cast,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from jobs.devices import Device, DeviceKind
from jobs.fairness import Fairness
from jobs.moves import move
from jobs.records import Attempt, Job, Usage, Worker
from jobs.schedule import WaitingReason
from jobs.states import WITHOUT_WORKER, JobState


@dataclass(frozen=True, slots=True)
class Place:
    """Where a queued job stands.

    Attributes:
        position: from 1, among those that a free worker would take; None for one that waits.
        reason: why it waits.
    """

    position: int | None
    reason: WaitingReason | None


def next_jobs(fairness: Fairness, device: Device) -> Select[UUID]:
    """The ids of the jobs that may run now on a device, the next one first."""
    # One condition for the planner: of two, it thinks that hardly any job is left.
    unfit = (~_fits(device), literal(str(WaitingReason.NO_FITTING_DEVICE)))
    may_run = _reason(fairness, unfit).is_(None)
    return _joined(select(Job.id)).where(may_run).order_by(*_order(fairness))


@dataclass(frozen=True, slots=True)
class Waiting:
    """Queued jobs that wait for the same reason.

    Attributes:
        reason: None: a free worker would take them.
        jobs: how many.
        longest_seconds: for how long the first of them could have been taken; see `waited`.
    """

    reason: WaitingReason | None
    jobs: int
    longest_seconds: float


def lengths(session: Session, fairness: Fairness) -> list[Waiting]:
    """The queue by what its jobs wait for; reasons of no job are left out."""
    reason = _reason(fairness, _FITS_NONE)
    waiting = _joined(select(reason.label("reason"), waited().label("seconds"))).subquery()
    query = select(
        waiting.c.reason, func.count().label("jobs"), func.max(waiting.c.seconds).label("longest")
    ).group_by(waiting.c.reason)
    return [
        Waiting(row.reason and WaitingReason(row.reason), row.jobs, float(row.longest))
        for row in session.execute(query)
    ]


def places(session: Session, fairness: Fairness, jobs: Iterable[UUID]) -> Mapping[UUID, Place]:
    """Where these jobs stand, those of them that are queued."""
    return _as_places(session.execute(_places(fairness), {"jobs": list(jobs)}))


def standing(
    session: Session, fairness: Fairness, owner: str | None, limit: int
) -> Mapping[UUID, Place]:
    """The first jobs of the queue, of one owner alone if it is named, in their order; those that
    wait for a reason come last."""
    ranked = _ranked(fairness)
    query = select(ranked).order_by(ranked.c.rank).limit(limit)
    if owner is not None:
        query = query.where(ranked.c.owner == owner)
    return _as_places(session.execute(query))


def _as_places(rows: Iterable[Any]) -> Mapping[UUID, Place]:
    return {
        row.id: Place(None, WaitingReason(row.reason)) if row.reason else Place(row.rank, None)
        for row in rows
    }


@cache
def _places(fairness: Fairness) -> Select[Any]:
    """Of the jobs `:jobs`."""
    ranked = _ranked(fairness)
    return select(ranked).where(ranked.c.id.in_(bindparam("jobs", expanding=True)))


@cache
def _ranked(fairness: Fairness) -> Subquery:
    """The whole queue. Kept, as writing it takes longer than the database takes to answer."""
    reason = _reason(fairness, _FITS_NONE)
    # Those that wait come last, so that they move nobody's position.
    order = (reason.is_not(None), *_order(fairness))
    rank = func.row_number().over(order_by=order).label("rank")
    return _joined(select(Job.id, Job.owner, reason.label("reason"), rank)).subquery()


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a worker that is there could take a job, free or when it is.

    Attributes:
        worker: its row.
        fits: whether its device has what the job needs.
        whole: whether all weights could stay on it, rather than come layer by layer.
    """

    worker: Worker
    fits: bool
    whole: bool


def fits(session: Session, job_id: UUID) -> list[Fit]:
    """Which of the workers that are there could take a job, by name."""
    found = []
    for worker in session.scalars(select(Worker).where(_THERE).order_by(Worker.name)):
        free = worker.free_bytes
        device = Device(DeviceKind(worker.device_kind), worker.device, free_bytes=free)
        whole = true() if free is None else func.coalesce(free >= _WHOLE, true())
        of_job = select(_fits(device), whole).where(Job.id == job_id)
        can, stays = session.execute(of_job).one()
        can = can and not worker.device_failed
        found.append(Fit(worker, can, can and stays))
    return found


def window_closed() -> ColumnElement[bool]:
    """Whether a job has a window, and it is closed now."""
    local = func.timezone(Job.window_zone, func.now())
    clock = cast(local, Time)
    overnight = Job.window_opens > Job.window_closes
    # After midnight it is still the window of the day before.
    day = case((and_(overnight, clock < Job.window_closes), local - timedelta(days=1)), else_=local)
    inside = case(
        (overnight, or_(clock >= Job.window_opens, clock < Job.window_closes)),
        else_=and_(clock >= Job.window_opens, clock < Job.window_closes),
    )
    is_open = and_(inside, func.extract("isodow", day) == any_(Job.window_days))
    return and_(Job.window_zone.is_not(None), ~is_open)


def waited() -> ColumnElement[float]:
    """For how many seconds a job could have been taken: since it came to the queue, its hold, its
    `not_before` and the job before it were over, and its window opened. That its owner's quota was
    full, or no device had room, counts as waiting."""
    dependency = aliased(Job)
    met_at = select(dependency.finished_at).where(dependency.id == Job.after).scalar_subquery()
    since = func.greatest(Job.queued_at, Job.held_until, Job.not_before, met_at, _window_opened())
    return func.greatest(0.0, func.extract("epoch", func.now() - since))


def _window_opened() -> ColumnElement[Any]:
    """When the window of a job last opened; null without one."""
    local = func.timezone(Job.window_zone, func.now())
    today = cast(local, Date).op("+", return_type=DateTime())(Job.window_opens)
    opened = case((today > local, today - timedelta(days=1)), else_=today)
    return func.timezone(Job.window_zone, opened)


def overdue() -> ColumnElement[bool]:
    """Whether the deadline of a job has passed."""
    return and_(Job.deadline.is_not(None), Job.deadline <= func.now())


def past_deadline(deadline: object) -> dict[str, Any]:
    """The error of a job that did not succeed in time."""
    return {
        "code": "deadline_passed",
        "detail": f"schedule.deadline: the job had not succeeded by {deadline}; what it has "
        "evaluated is kept: retry it without a deadline, or submit it with a later one",
    }


def fail_hopeless(session: Session) -> list[UUID]:
    """Fail jobs that nobody holds and that will not run: too late, or after one that did not
    succeed."""
    dependency = aliased(Job)
    ended = [state for state in JobState if state.is_final and state is not JobState.SUCCEEDED]
    unmet = exists().where(dependency.id == Job.after, dependency.state.in_(ended))
    unheld = Job.state.in_([JobState.QUEUED, JobState.PAUSED])
    query = select(Job).where(unheld, or_(overdue(), unmet)).with_for_update(skip_locked=True)
    jobs = session.scalars(query).all()
    late = set(session.scalars(select(Job.id).where(Job.id.in_(job.id for job in jobs), overdue())))
    for job in jobs:
        assert job.deadline is not None or job.after is not None
        error = past_deadline(job.deadline) if job.id in late else _unmet(job.after)
        move(session, job.id, JobState.FAILED, data=error, values={"error": error})
    return [job.id for job in jobs]


def charge(session: Session, job_id: UUID, seconds: ColumnElement[Any], fairness: Fairness) -> None:
    """Add to what the owner of a job has used."""
    owner = select(Job.owner).where(Job.id == job_id).scalar_subquery()
    used = insert(Usage).values(owner=owner, device_seconds=seconds, at=func.now())
    session.execute(
        used.on_conflict_do_update(
            index_elements=["owner"],
            set_={
                "device_seconds": _decayed(fairness) + used.excluded.device_seconds,
                "at": func.now(),
            },
        )
    )


def _unmet(after: UUID | None) -> dict[str, Any]:
    return {
        "code": "dependency_failed",
        "detail": f"schedule.after: job {after} has ended without success; retry that one, and "
        "submit this one again after it",
        "job": str(after),
    }


def _order(fairness: Fairness) -> tuple[Any, ...]:
    # A job of this very transaction is younger than the transaction.
    waited = func.greatest(func.extract("epoch", func.now() - Job.created_at), 0)
    level = Job.priority + func.floor(waited / fairness.ageing_seconds)
    used = func.coalesce(_decayed(fairness), 0.0) + func.coalesce(_HELD.c.seconds, 0.0)
    return level.desc(), used, Job.created_at, Job.id


def _decayed(fairness: Fairness) -> ColumnElement[float]:
    half_lives = func.extract("epoch", func.now() - Usage.at) / fairness.half_life_seconds
    return Usage.device_seconds * func.power(0.5, half_lives)


def _reason(fairness: Fairness, *further: tuple[ColumnElement[bool], Any]) -> ColumnElement[Any]:
    """Why a job would not be taken, or one of further reasons; null if it would."""
    dependency = aliased(Job)
    met = exists().where(dependency.id == Job.after, dependency.state == JobState.SUCCEEDED)
    reasons: list[tuple[ColumnElement[bool], Any]] = [
        (Job.held_until > func.now(), Job.hold_reason),
        (Job.not_before > func.now(), literal(str(WaitingReason.NOT_BEFORE))),
        (and_(Job.after.is_not(None), ~met), literal(str(WaitingReason.DEPENDENCY))),
        (window_closed(), literal(str(WaitingReason.WINDOW))),
    ]
    if fairness.running_per_owner is not None:
        running = func.coalesce(_HELD.c.jobs, 0)
        full = running >= fairness.running_per_owner
        reasons.append((full, literal(str(WaitingReason.QUOTA))))
    return case(*reasons, *further, else_=null())


def _fits(device: Device) -> ColumnElement[bool]:
    """Whether a device has what a job needs: room for the whole model, or, where no worker's has
    so much in all, for its layers one by one."""
    kind = or_(Job.device_kind.is_(None), Job.device_kind == device.kind)
    if device.free_bytes is None:
        return kind
    whole = func.coalesce(device.free_bytes >= _WHOLE, true())
    if device.kind is not DeviceKind.CUDA:
        return and_(kind, whole)
    cuda = _most(Worker.memory_bytes, DeviceKind.CUDA)
    host = case((Job.device_kind.is_(None), _most(Worker.memory_bytes, DeviceKind.CPU)), else_=0)
    too_large = func.greatest(cuda, host) < _WHOLE
    return and_(kind, or_(whole, and_(device.free_bytes >= _STREAMED, too_large)))


def _fits_none() -> ColumnElement[bool]:
    """Whether there are workers, and none of them could take a job, free or when it is."""
    streamed, whole = func.coalesce(_STREAMED, 0), func.coalesce(_WHOLE, 0)
    on_cuda = streamed <= _most(Worker.free_bytes, DeviceKind.CUDA)
    on_host = whole <= _most(Worker.free_bytes, DeviceKind.CPU)
    fits = or_(
        and_(or_(Job.device_kind.is_(None), Job.device_kind == DeviceKind.CUDA), on_cuda),
        and_(or_(Job.device_kind.is_(None), Job.device_kind == DeviceKind.CPU), on_host),
    )
    return and_(exists().where(_THERE), ~fits)


def _most(memory: InstrumentedAttribute[int | None], kind: DeviceKind) -> ColumnElement[int]:
    """The most memory that a working device of a kind has, -1 without one; asked once a query."""
    most = func.coalesce(func.max(func.coalesce(memory, _UNKNOWN)), -1)
    working = and_(_THERE, Worker.device_kind == kind, ~Worker.device_failed)
    return select(most).where(working).scalar_subquery()


_UNKNOWN = 2**62
"""Bytes of a device that nothing is known of: it may have any."""

_WHOLE = Job.memory_bytes
_STREAMED = func.coalesce(Job.streamed_memory_bytes, Job.memory_bytes)
_THERE = and_(Worker.lost_at > func.now(), ~Worker.draining)


_FITS_NONE = (_fits_none(), literal(str(WaitingReason.NO_FITTING_DEVICE)))
"""Why a job waits whichever device is free."""

_HELD = (
    select(
        Job.owner,
        func.count().label("jobs"),
        func.sum(func.extract("epoch", func.now() - Attempt.started_at)).label("seconds"),
    )
    .join(Attempt, Attempt.fencing_token == Job.fencing_token)
    .where(Job.state.in_(WITHOUT_WORKER))
    .group_by(Job.owner)
    .subquery("held")
)
"""What each owner has running."""


def _joined(query: Select[Any]) -> Select[Any]:
    """Queued jobs, with what their owners have used and have running."""
    return (
        query.select_from(Job)
        .outerjoin(Usage, Usage.owner == Job.owner)
        .outerjoin(_HELD, _HELD.c.owner == Job.owner)
        .where(Job.state == JobState.QUEUED)
    )
