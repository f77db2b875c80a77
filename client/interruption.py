"""Ctrl-C: the first is a wish, the second leaves at once."""

import os
import signal
from types import FrameType, TracebackType
from typing import Self

from client.exit_codes import ExitCode

_NOTE = b"\nstopping after the forward pass in flight; Ctrl-C again leaves at once\n"


class Interruption:
    """In its `with` block, SIGINT is noted in `wished` instead of raising."""

    def __init__(self) -> None:
        self.wished = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._heard)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.wished:
            # Nothing is lost: the ledger is written trial by trial. The cursor comes back.
            os.write(2, b"\x1b[?25h" if os.isatty(2) else b"")
            os._exit(ExitCode.INTERRUPTED)
        self.wished = True
        os.write(2, _NOTE)
