"""The one place where a job's state changes: a guarded update and an event in one transaction."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import cast, func, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from jobs.deliveries import announce
from jobs.progress import Stage
from jobs.records import Event, Job
from jobs.states import JobState, sources_of


def move(
    session: Session,
    job_id: UUID,
    target: JobState,
    *,
    data: Mapping[str, Any],
    event: str | None = None,
    values: Mapping[str, Any] | None = None,
    fencing_token: int | None = None,
) -> bool:
    """Move a job to `target` if its state allows it and, where given, the token still holds it.

    The event is named `event`, or like the state. A state that no worker holds gives up the lease;
    a final state gets its time. False, and nothing is changed, when the guard does not hold.
    """
    changes: dict[str, Any] = {"state": target, **(values or {})}
    if not target.is_held:
        changes |= {"fencing_token": None, "lease_expires_at": None}
    if target is JobState.QUEUED:
        changes["queued_at"] = func.now()
    if target.is_final:
        changes["finished_at"] = func.now()
    if not target.is_held:
        rest = _AT_REST | ({"stage": _STAGES[target]} if target in _STAGES else {})
        changes["progress"] = Job.progress.op("||")(cast(rest, JSONB))
    guarded = (
        update(Job)
        .where(Job.id == job_id, Job.state.in_(sources_of(target)))
        .values(changes)
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    )
    if fencing_token is not None:
        guarded = guarded.where(Job.fencing_token == fencing_token)
    if session.scalar(guarded) is None:
        return False
    tell(session, job_id, event or str(target), data)
    return True


_STAGES = {
    JobState.QUEUED: Stage.WAITING,
    JobState.PAUSED: Stage.WAITING,
    JobState.SUCCEEDED: Stage.DONE,
}
"""What the progress says after a move; a job that failed or was cancelled keeps its last stage."""

_AT_REST = dict.fromkeys(("seconds_left", "seconds_left_basis", "forward_passes_per_second"))
"""What is said of a job that runs, and of no other."""


def tell(session: Session, job_id: UUID, event: str, data: Mapping[str, Any]) -> None:
    """Append an event; the number comes from the job's row, whose lock keeps it without gaps.

    Webhooks that want to hear of it are sent a message once the transaction is committed.
    """
    sequence, state, name, owner = session.execute(
        update(Job)
        .where(Job.id == job_id)
        .values(last_event=Job.last_event + 1)
        .returning(Job.last_event, Job.state, Job.name, Job.owner)
        .execution_options(synchronize_session=False)
    ).one()
    session.add(Event(job_id=job_id, sequence=sequence, type=event, data=dict(data)))
    session.flush()
    job = {"job_id": str(job_id), "state": state, "name": name, "owner": owner}
    announce(session, job, event)
