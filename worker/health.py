"""Whether the device of this worker works. One that does not would fail job after job."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from jobs.devices import DeviceKind

_log = structlog.get_logger(__name__)

_STEP_SECONDS = 0.2
_PATIENCE_SECONDS = 120.0
"""For torch to be loaded on a busy machine, and for a context to be made on the device."""


class DeviceHealth:
    """Asks the device to compute when it is suspected, and again until it does.

    A CPU is never suspected: this process runs on it.

    Args:
        kind: of the device.
        seconds: how long one that has failed is left alone before it is asked again.
        probe: a command that ends with 0 where the device computes; None: `worker.probe`.

    Attributes:
        failed: whether it did not compute when it was last asked.
    """

    failed = False

    def __init__(
        self, kind: DeviceKind, seconds: float, probe: Sequence[str] | None = None
    ) -> None:
        self._is_cpu = kind is DeviceKind.CPU
        self._seconds = seconds
        self._probe = probe or [sys.executable, "-m", "worker.probe", str(kind)]
        self._asked = 0.0

    def recovers(self) -> bool:
        """Whether the device may be used: it has not failed, or computes again."""
        if not self.failed:
            return True
        return time.monotonic() - self._asked >= self._seconds and self.ask(lambda: None)

    def ask(self, meanwhile: Callable[[], object]) -> bool:
        """Whether the device computes now; `meanwhile` is called at short intervals."""
        if self._is_cpu:
            return True
        before, self.failed = self.failed, not self._computes(meanwhile)
        self._asked = time.monotonic()
        if self.failed and not before:
            _log.error("device_failed", cure="no job is taken until the device computes again")
        if before and not self.failed:
            _log.info("device_recovered")
        return not self.failed

    def _computes(self, meanwhile: Callable[[], object]) -> bool:
        process = subprocess.Popen(self._probe, stdin=subprocess.DEVNULL)
        try:
            end = time.monotonic() + _PATIENCE_SECONDS
            while time.monotonic() < end:
                with suppress(subprocess.TimeoutExpired):
                    return process.wait(_STEP_SECONDS) == 0
                meanwhile()
            return False
        finally:
            process.kill()
            # One that hangs in the driver does not even die.
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STEP_SECONDS)
