"""What is borne of a job whose process crashes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CrashLimits:
    """How often, and how long the job waits in between.

    Attributes:
        in_a_row: with so many, none of them with a newly evaluated mask, the job fails.
        backoff_seconds: how long it waits after the first of them; twice as long after each.
    """

    in_a_row: int = 3
    backoff_seconds: float = 10.0
