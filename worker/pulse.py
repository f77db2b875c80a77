"""The second watermark: whether a child's work goes on, and not only its process.

The child beats before each forward pass. Its supervisor looks when the last beat was, and how long
the longest pause between two has been, which tells what a pass takes on this model and device.
"""

import time
from pathlib import Path

PATIENCE = 20
"""A child may pause for so many times its longest pause so far."""

BEFORE_FIRST = 10
"""Loading a model may take so many times what a pause may take at least."""

_SECONDS_BETWEEN_WRITES = 0.2


class Pulse:
    """The child's side.

    Attributes:
        beats: so far.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: float | None = None
        self._written = 0.0
        self._longest = 0.0
        self.beats = 0

    def beat(self) -> None:
        """Tell that the work goes on; cheap enough for every forward pass."""
        self.beats += 1
        now = time.monotonic()
        if self._last is not None:
            self._longest = max(self._longest, now - self._last)
        self._last = now
        if now - self._written > _SECONDS_BETWEEN_WRITES:
            self._path.write_text(f"{self._longest:.3f}")
            self._written = now


class PulseWatch:
    """The supervisor's side, by its own clock.

    Args:
        path: of the pulse.
        seconds: what a pause may take at least.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = path
        self._seconds = seconds
        self._seen: tuple[int, str] | None = None
        self._since = time.monotonic()
        self._longest: float | None = None

    def stalled(self) -> float | None:
        """For how long there was no beat, if that is too long."""
        self._look()
        silent = time.monotonic() - self._since
        return silent if silent > self.limit else None

    @property
    def limit(self) -> float:
        """Seconds without a beat that are borne."""
        if self._longest is None:
            return BEFORE_FIRST * self._seconds
        return max(self._seconds, PATIENCE * self._longest)

    def _look(self) -> None:
        try:
            found = (self._path.stat().st_mtime_ns, self._path.read_text())
        except FileNotFoundError:
            return
        if found != self._seen:
            self._seen, self._since = found, time.monotonic()
            # Empty while it is being written: the longest pause is that of before.
            self._longest = float(found[1]) if found[1] else self._longest
