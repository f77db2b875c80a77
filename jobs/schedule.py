"""When a job may run, and before which others. What a request says of it; no database here."""

import re
from datetime import datetime, time
from enum import StrEnum
from typing import Annotated
from uuid import UUID
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from jobs.moments import Moment


class Priority(StrEnum):
    """How urgent a job is, from the least to the most."""

    LOWEST = "lowest"
    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    HIGHEST = "highest"

    @property
    def level(self) -> int:
        """Its number, from 0."""
        return list(Priority).index(self)

    @classmethod
    def of(cls, level: int) -> "Priority":
        """The one of a number."""
        return list(cls)[level]


class Day(StrEnum):
    """A day of the week."""

    MONDAY = "monday"
    TUESDAY = "tuesday"
    WEDNESDAY = "wednesday"
    THURSDAY = "thursday"
    FRIDAY = "friday"
    SATURDAY = "saturday"
    SUNDAY = "sunday"

    @property
    def number(self) -> int:
        """As in ISO 8601, from 1."""
        return list(Day).index(self) + 1


class AtClose(StrEnum):
    """What a job does that runs when its window closes."""

    PAUSE = "pause"
    FINISH = "finish"


class WaitingReason(StrEnum):
    """Why a queued job would not be taken by a free worker."""

    NOT_BEFORE = "not_before"
    DEPENDENCY = "dependency"
    WINDOW = "window"
    QUOTA = "quota"
    NO_FITTING_DEVICE = "no_fitting_device"
    RETRY_BACKOFF = "retry_backoff"
    DISK_FULL = "disk_full"
    STORAGE_UNAVAILABLE = "storage_unavailable"


_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


def _hours(value: str) -> str:
    found = _HOURS.fullmatch(value)
    if found is None:
        raise ValueError("must be like 22:00-07:00, in 24 hours")
    if found.groups()[:2] == found.groups()[2:]:
        raise ValueError(
            "must not open and close at the same time; leave the window out for always"
        )
    return value


def _zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError("must be an IANA time zone, such as Europe/Berlin or UTC")
    return value


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Window(_Frozen):
    """Hours of a day in which a job may run."""

    hours: Annotated[str, AfterValidator(_hours), Field(examples=["22:00-07:00"])]
    """Opening and closing on the clock of the zone; one that closes before it opens goes over
    midnight."""

    zone: Annotated[str, AfterValidator(_zone), Field(examples=["Europe/Berlin"])] = "UTC"
    """IANA time zone; its summer time is followed."""

    days: Annotated[tuple[Day, ...], Field(min_length=1, max_length=7)] = tuple(Day)
    """On which the window opens."""

    at_close: AtClose = AtClose.PAUSE
    """`pause`: a running job lets go between two forward passes, and goes on when the window opens.
    `finish`: it runs to its end."""

    @property
    def opens(self) -> time:
        """On the clock of the zone."""
        return time.fromisoformat(self.hours.split("-")[0])

    @property
    def closes(self) -> time:
        """On the clock of the zone."""
        return time.fromisoformat(self.hours.split("-")[1])


class Schedule(_Frozen):
    """When a job may run."""

    priority: Priority = Priority.NORMAL
    """Jobs of a higher one go first; waiting lifts a job, so that none waits for ever."""

    not_before: Moment | None = None
    """The job waits until then."""

    deadline: Moment | None = None
    """A job that has not succeeded by then fails; what it has evaluated is kept for a retry."""

    after: UUID | None = None
    """A job that must have succeeded before; if it ends otherwise, this one fails."""

    window: Window | None = None
    """Hours in which the job may run; null: always."""

    @model_validator(mode="after")
    def _deadline_is_last(self) -> "Schedule":
        start: datetime | None = self.not_before
        if start is not None and self.deadline is not None and self.deadline <= start:
            raise ValueError("deadline must be later than not_before")
        return self
