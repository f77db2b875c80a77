"""A child that is started again when it ends by itself."""

import time
from collections.abc import Callable

from client.embedded.child import Child

LONGEST_PAUSE = 30.0
# One that lived this long had no trouble in starting: its next pause is the shortest again.
STEADY_AFTER = 60.0


class Service:
    """Waits 1, 2, 4 ... 30 seconds between restarts; `announce` gets a line for each."""

    def __init__(self, child: Child, announce: Callable[[str], None]) -> None:
        self.child = child
        self._announce = announce
        self._pause = 1.0
        self._started = 0.0
        self._due: float | None = None

    def start(self) -> None:
        self._due = None
        self._started = time.monotonic()
        self.child.start()

    def tend(self) -> None:
        """Notice an end, or start again when the pause is over; to be called often, never waits."""
        if self.child.running:
            return
        now = time.monotonic()
        if self._due is None:
            if now - self._started > STEADY_AFTER:
                self._pause = 1.0
            self._announce(
                f"{self.child.name} ended with exit code {self.child.exit_code}; "
                f"it starts again in {self._pause:.0f} s. Its log: {self.child.log}"
            )
            self._due = now + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        elif now >= self._due:
            self.start()
