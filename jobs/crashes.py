"""What is borne of a job whose process ends as it should not."""

from dataclasses import dataclass
from enum import StrEnum


class Crash(StrEnum):
    """How it ended; also the event of the job's return to the queue."""

    CRASHED = "crashed"
    STALLED = "stalled"
    HOST_OUT_OF_MEMORY = "host_out_of_memory"

    @property
    def code(self) -> str:
        """The error of a job for which this was once too often."""
        return "poisoned" if self is Crash.CRASHED else str(self)

    @property
    def words(self) -> str:
        """What happened to the process."""
        return {
            Crash.CRASHED: "crashed",
            Crash.STALLED: "stood still",
            Crash.HOST_OUT_OF_MEMORY: "was killed by the kernel, since its host ran out of memory,",
        }[self]


@dataclass(frozen=True, slots=True)
class CrashLimits:
    """How often, and how long the job waits in between.

    Attributes:
        in_a_row: with so many, none of them with a newly evaluated mask, the job fails.
        backoff_seconds: how long it waits after the first of them; twice as long after each.
    """

    in_a_row: int = 3
    backoff_seconds: float = 10.0
