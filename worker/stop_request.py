"""The wish of a supervisor that its child stop, as the child hears it."""

import signal

from worker.pulse import Pulse


class StopRequest:
    """Becomes true with SIGTERM; the core asks it between two forward passes, which is a pulse."""

    def __init__(self, pulse: Pulse) -> None:
        self._asked = False
        self._pulse = pulse
        signal.signal(signal.SIGTERM, self._ask)

    def __call__(self) -> bool:
        """See `bonsai_core.events.Stop`."""
        self._pulse.beat()
        return self._asked

    def _ask(self, _number: int, _frame: object) -> None:
        self._asked = True
