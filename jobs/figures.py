"""What the service counts of itself, from its rows: every process that reads says the same.

Read in one transaction, in a few statements that touch neither events nor evaluations. Counts grow
for as long as nobody deletes rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, Engine, Float, QueuePool, cast, func, select
from sqlalchemy.orm import Session

from jobs.fairness import DEFAULT, Fairness
from jobs.queue import Waiting, lengths
from jobs.records import Artifact, Attempt, Job
from jobs.states import JobState

WAITS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)
"""Bounds of the histogram of waits, in seconds."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """All attempts there have been.

    Attributes:
        running: those that hold a job.
        by_outcome: the others.
        again: those that were not the first one at their job.
        waits: by bucket of `WAITS`, and those above the last bound: how long the job could have
            been taken before it was.
        waited_seconds: sum of that.
        masks_evaluated: by all of them.
        forward_tokens: calibration tokens on which these were judged, where that is known.
    """

    running: int
    by_outcome: Mapping[str, int]
    again: int
    waits: Sequence[int]
    waited_seconds: float
    masks_evaluated: int
    forward_tokens: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What there is, and what has happened.

    Attributes:
        jobs: by state; states without jobs are left out.
        queue: by what its jobs wait for; reasons of no job are left out.
        attempts: see `Attempts`.
        artifact_bytes: of all published files.
    """

    jobs: Mapping[JobState, int]
    queue: Sequence[Waiting]
    attempts: Attempts
    artifact_bytes: int


class FigureStore:
    """Reads the figures, and those of its own connections."""

    def __init__(self, engine: Engine, fairness: Fairness = DEFAULT) -> None:
        self._engine = engine
        self._fairness = fairness

    def read(self) -> Figures:
        """The figures of one moment; SQLAlchemyError when the database does not answer."""
        states = select(Job.state, func.count()).group_by(Job.state)
        size = select(func.coalesce(func.sum(Artifact.size_bytes), 0))
        engine = self._engine.execution_options(isolation_level="REPEATABLE READ")
        with Session(engine) as session:
            return Figures(
                jobs={JobState(state): count for state, count in session.execute(states)},
                queue=lengths(session, self._fairness),
                attempts=_attempts(session),
                artifact_bytes=int(session.scalar(size) or 0),
            )

    @property
    def connections(self) -> tuple[int, int]:
        """This process's connections to the database that are in use, and the most it may have."""
        assert isinstance(self._engine.pool, QueuePool)
        return self._engine.pool.checkedout(), self._engine.pool.size()


def _attempts(session: Session) -> Attempts:
    bucket = func.width_bucket(Attempt.waited_seconds, cast(list(WAITS), ARRAY(Float)))
    tokens = Attempt.masks_evaluated * func.coalesce(Attempt.tokens_per_mask, 0)
    query = select(
        Attempt.outcome,
        bucket.label("bucket"),
        func.count().label("attempts"),
        func.count().filter(Attempt.number > 1).label("again"),
        func.coalesce(func.sum(Attempt.waited_seconds), 0.0).label("waited"),
        func.sum(Attempt.masks_evaluated).label("masks"),
        func.sum(tokens).label("tokens"),
    ).group_by(Attempt.outcome, bucket)
    rows = session.execute(query).all()
    outcomes = {row.outcome for row in rows} - {None}

    def total(column: str, **where: Any) -> Any:
        return sum(
            getattr(row, column)
            for row in rows
            if all(getattr(row, name) == value for name, value in where.items())
        )

    return Attempts(
        running=total("attempts", outcome=None),
        by_outcome={outcome: total("attempts", outcome=outcome) for outcome in sorted(outcomes)},
        again=total("again"),
        waits=[total("attempts", bucket=number) for number in range(len(WAITS) + 1)],
        waited_seconds=float(total("waited")),
        masks_evaluated=int(total("masks")),
        forward_tokens=int(total("tokens")),
    )
