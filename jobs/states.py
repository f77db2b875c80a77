"""The states of a job, the moves between them, and what a client may wish. Pure data;
docs/states.md draws it."""

from collections.abc import Mapping
from enum import StrEnum


class JobState(StrEnum):
    """Where a job stands. Succeeded, failed and cancelled are final."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether no move leads out of this state."""
        return not MOVES[self]

    @property
    def is_held(self) -> bool:
        """Whether a worker holds the job, by a lease."""
        return self in WITHOUT_WORKER


MOVES: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset(
        {JobState.RUNNING, JobState.PAUSED, JobState.CANCELLED, JobState.FAILED}
    ),
    JobState.RUNNING: frozenset(
        {
            JobState.QUEUED,
            JobState.PAUSING,
            JobState.CANCELLING,
            JobState.SUCCEEDED,
            JobState.FAILED,
        }
    ),
    JobState.PAUSING: frozenset(
        {
            JobState.RUNNING,
            JobState.PAUSED,
            JobState.CANCELLING,
            JobState.SUCCEEDED,
            JobState.FAILED,
        }
    ),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELLED, JobState.FAILED}),
    JobState.CANCELLING: frozenset({JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}

WITHOUT_WORKER: Mapping[JobState, JobState] = {
    JobState.RUNNING: JobState.QUEUED,
    JobState.PAUSING: JobState.PAUSED,
    JobState.CANCELLING: JobState.CANCELLED,
}
"""Where a held job comes to when its worker lets go of it, or is lost, with work left to do."""


class Wish(StrEnum):
    """What a client may ask of a job."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    RETRY = "retry"


WISHES: Mapping[Wish, Mapping[JobState, JobState]] = {
    Wish.PAUSE: {
        JobState.QUEUED: JobState.PAUSED,
        JobState.RUNNING: JobState.PAUSING,
        JobState.PAUSING: JobState.PAUSING,
        JobState.PAUSED: JobState.PAUSED,
    },
    Wish.RESUME: {
        JobState.QUEUED: JobState.QUEUED,
        JobState.RUNNING: JobState.RUNNING,
        JobState.PAUSING: JobState.RUNNING,
        JobState.PAUSED: JobState.QUEUED,
    },
    Wish.CANCEL: {
        JobState.QUEUED: JobState.CANCELLED,
        JobState.RUNNING: JobState.CANCELLING,
        JobState.PAUSING: JobState.CANCELLING,
        JobState.PAUSED: JobState.CANCELLED,
        JobState.CANCELLING: JobState.CANCELLING,
        JobState.CANCELLED: JobState.CANCELLED,
    },
    # The job stays as it is: another one goes on from what it has.
    Wish.RETRY: {JobState.FAILED: JobState.FAILED, JobState.CANCELLED: JobState.CANCELLED},
}
"""In which states a wish is legal, and what becomes of the job at once; the same state means that
there is nothing to change, so that asking twice is asking once."""


def sources_of(target: JobState) -> list[JobState]:
    """The states from which a move to `target` is allowed."""
    return [source for source, targets in MOVES.items() if target in targets]


def legal_wishes(state: JobState) -> list[Wish]:
    """What a client may ask of a job in this state."""
    return [wish for wish, states in WISHES.items() if state in states]
