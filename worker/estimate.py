"""How fast a job's attempt is, and how long it still takes, from what it has measured itself."""

import statistics
import time
from collections import deque

from jobs.progress import Progress, TimeBasis
from worker.pulse import Pulse

_WINDOW_SECONDS = 30.0


class Estimate:
    """Hears of masks and rounds; `of` tells what follows for the job's progress.

    Args:
        pulse: beats before each forward pass.
    """

    def __init__(self, pulse: Pulse) -> None:
        self._pulse = pulse
        self._mask_seconds: list[float] = []
        self._round_masks_seconds = 0.0
        self._rest_seconds: list[float] = []
        self._beats: deque[tuple[float, int]] = deque()

    def round_started(self) -> None:
        """Trials follow."""
        self._round_masks_seconds = 0.0
        # What was done between the rounds was not trying.
        self._beats.clear()
        self._beats.append((time.monotonic(), self._pulse.beats))

    def mask_evaluated(self, seconds: float) -> None:
        """A trial was measured, not read from the ledger."""
        self._mask_seconds.append(seconds)
        self._round_masks_seconds += seconds
        now = time.monotonic()
        self._beats.append((now, self._pulse.beats))
        while len(self._beats) > 2 and self._beats[0][0] < now - _WINDOW_SECONDS:
            self._beats.popleft()

    def round_finished(self, seconds: float) -> None:
        """A round has taken so long, with the trials that were measured in it."""
        self._rest_seconds.append(max(0.0, seconds - self._round_masks_seconds))

    def of(self, progress: Progress, *, in_round: bool) -> Progress:
        """The progress with its speeds and the time left; `in_round`: its round has not ended."""
        per_mask = statistics.median(self._mask_seconds) if self._mask_seconds else None
        measured: dict[str, object] = {
            "seconds_per_mask": per_mask,
            "forward_passes_per_second": self._passes_per_second(),
            "seconds_left": None,
            "seconds_left_basis": None,
        }
        later = max(0, progress.rounds - progress.round)
        masks = later * progress.masks_per_round
        if in_round:
            masks += max(0, progress.masks_per_round - progress.masks_evaluated)
        if self._rest_seconds and (per_mask is not None or not masks):
            rest = statistics.fmean(self._rest_seconds)
            left = masks * (per_mask or 0.0) + (later + in_round) * rest
            measured |= {"seconds_left": left, "seconds_left_basis": TimeBasis.ROUNDS}
        elif per_mask is not None:
            left = masks * per_mask
            measured |= {"seconds_left": left, "seconds_left_basis": TimeBasis.MASKS}
        return progress.model_copy(update=measured)

    def _passes_per_second(self) -> float | None:
        if len(self._beats) < 2:
            return None
        (began, first), (ended, last) = self._beats[0], self._beats[-1]
        return (last - first) / (ended - began) if ended > began else None
