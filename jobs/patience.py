"""Bearing a database that is away for a moment."""

import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from jobs.errors import DATABASE_UNREACHABLE

Value = TypeVar("Value")

_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 2.0

_log = structlog.get_logger(__name__)


class Patience:
    """Does something again until the database answers, or patience is over.

    What is done may have happened although no answer came, so it has to be harmless twice.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __call__(self, work: Callable[[], Value]) -> Value:
        """What `work` gives; the last error of the database when patience is over."""
        end, wait = time.monotonic() + self._seconds, _FIRST_WAIT_SECONDS
        while True:
            try:
                return work()
            except DATABASE_UNREACHABLE as error:
                if time.monotonic() + wait > end:
                    raise
                _log.warning("database_unreachable", error=str(error), wait_seconds=wait)
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
