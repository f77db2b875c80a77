"""What is waited before something is tried again that a network has spoilt."""

import time
from collections.abc import Iterator

from client.errors import ServiceError, UnreachableServiceError

PAUSE_SECONDS = 0.5
"""Before the second try; it doubles with each."""


def pauses(tries: int) -> Iterator[float]:
    """Seconds to wait before each try but the first; at their end it is time to give up."""
    return (PAUSE_SECONDS * 2**number for number in range(tries - 1))


class Patience:
    """Bears a service that is away, as in a restart.

    Args:
        seconds: for how long, before its error is raised.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def answered(self) -> None:
        """It is there."""
        self._since = None

    def bear(self, error: UnreachableServiceError | ServiceError) -> None:
        """Wait a moment; raises the error if it would stay the same, or patience is over."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        for_good = isinstance(error, ServiceError) and error.problem.status < 500
        if for_good or now - self._since >= self._seconds:
            raise error
        time.sleep(PAUSE_SECONDS)
