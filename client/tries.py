"""What is waited before something is tried again that a network has spoilt."""

import time
from collections.abc import Iterator

from client.effects import Pause
from client.errors import ServiceError, UnreachableServiceError

PAUSE_SECONDS = 0.5
"""Before the second try; it doubles with each."""


def pauses(tries: int) -> Iterator[float]:
    """Seconds to wait before each try but the first; at their end it is time to give up."""
    return (PAUSE_SECONDS * 2**number for number in range(tries - 1))


_TOO_MANY_REQUESTS = 429


class Patience:
    """Bears a service that is away, as in a restart, or that has had enough of us for a while.

    Args:
        seconds: for how long, before its error is raised.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def answered(self) -> None:
        """It is there."""
        self._since = None

    def bear(self, error: UnreachableServiceError | ServiceError) -> Pause:
        """The pause before another try; raises the error if it would stay the same, or patience is
        over."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        answered = error.problem.status if isinstance(error, ServiceError) else 503
        busy = answered == _TOO_MANY_REQUESTS
        if (answered < 500 and not busy) or now - self._since >= self._seconds:
            raise error
        wanted = error.retry_after_seconds if isinstance(error, ServiceError) else None
        return Pause(max(PAUSE_SECONDS, wanted or 0) if busy else PAUSE_SECONDS)
