"""How long what belongs to jobs that have ended is kept."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retention:
    """How long things are kept.

    Attributes:
        days: after the job's end; None: for ever.
        per_owner: so many of the jobs of an owner that ended last; None: all.
        notice_hours: between the announcement and the end.
    """

    days: float | None = None
    per_owner: int | None = None
    notice_hours: float = 24.0
