"""What the rounds of a job did, as clients see them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from jobs.records import Evaluation, Event, Round


@dataclass(frozen=True, slots=True)
class RoundAccount:
    """A round, and what was measured in it.

    Attributes:
        masks: that it tries; None: not chosen yet.
        evaluated: of them, so far.
        mask_seconds: that these took together.
        seconds: from its start to its end, in the attempt that has finished it.
    """

    round: Round
    masks: int | None
    evaluated: int
    mask_seconds: float
    seconds: float | None


def accounts(session: Session, job_id: UUID) -> Sequence[RoundAccount]:
    """Of every round that was begun, the first one first."""
    begun = select(Round).where(Round.job_id == job_id).order_by(Round.number)
    masks, starts = _masks(session, job_id), _told(session, job_id, "round_started")
    ends = _told(session, job_id, "round_finished")
    return [
        RoundAccount(
            row,
            starts.get(row.number, {}).get("masks"),
            *masks.get(row.number, (0, 0.0)),
            ends.get(row.number, {}).get("seconds"),
        )
        for row in session.scalars(begun)
    ]


def _masks(session: Session, job_id: UUID) -> Mapping[int, tuple[int, float]]:
    """By round, how many were evaluated, and for how many seconds."""
    counted = (
        select(Evaluation.round, func.count(), func.sum(Evaluation.seconds))
        .where(Evaluation.job_id == job_id)
        .group_by(Evaluation.round)
    )
    return {number: (count, seconds) for number, count, seconds in session.execute(counted)}


def _told(session: Session, job_id: UUID, event: str) -> Mapping[int, Mapping[str, Any]]:
    """By round, what an event has said of it; of one that was begun again, what it said last."""
    said = select(Event.data).where(Event.job_id == job_id, Event.type == event)
    return {data["round"]: data for data in session.scalars(said.order_by(Event.sequence))}
