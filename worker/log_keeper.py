"""Stores what a child says, line by line, while it says it.

The child writes to a file, and is never waited for; a thread of its worker reads that file. When
the database is away, lines wait here, no more of them than are kept.
"""

import threading
from collections import deque
from pathlib import Path
from typing import BinaryIO

import structlog
from sqlalchemy.exc import SQLAlchemyError

from jobs.log_lines import LogStore
from jobs.patience import Patience

KEPT_BYTES = 2**20
"""Of the first lines of a log, and again of its last, which tell of a crash."""

LONGEST_LINE = 2**15
"""Characters; the rest of a longer line is left out."""

_ROW_BYTES = 32
"""What a line takes besides its text."""

_PIECE_BYTES = 2**16
_LINES_AT_ONCE = 1000
_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_AFTER_END = 2
_PATIENCE_SECONDS = 60

_log = structlog.get_logger(__name__)


class LogWindow:
    """Which lines of a log are kept, and which of these are still to be stored.

    Attributes:
        fresh: to be stored, by number.
        left_out: the first and the last line that are not kept.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self.fresh: dict[int, str] = {}
        self.left_out: tuple[int, int] | None = None
        self._kept_bytes = kept_bytes
        self._lines = 0
        self._first_bytes = 0
        self._last: deque[tuple[int, int]] = deque()
        self._last_bytes = 0

    def add(self, text: str) -> None:
        """Take the next line; as many lines as need be go from before the last ones."""
        self._lines += 1
        self.fresh[self._lines] = text
        size = len(text.encode()) + _ROW_BYTES
        if not self._last and self._first_bytes + size <= self._kept_bytes:
            self._first_bytes += size
            return
        self._last.append((self._lines, size))
        self._last_bytes += size
        while self._last_bytes > self._kept_bytes and len(self._last) > 1:
            number, size = self._last.popleft()
            self._last_bytes -= size
            self.fresh.pop(number, None)
            self.left_out = (self.left_out[0] if self.left_out else number, number)


class LogKeeper(threading.Thread):
    """Reads the log of an attempt and stores it, until it is told that the child has ended.

    Args:
        store: where lines go.
        fencing_token: of the attempt.
        path: of the file that the child writes.
    """

    def __init__(self, store: LogStore, fencing_token: int, path: Path) -> None:
        super().__init__(name="log", daemon=True)
        self._store = store
        self._token = fencing_token
        self._path = path
        self._window = LogWindow()
        self._left_out: tuple[int, int] | None = None
        self._rest = b""
        self._ended = threading.Event()

    def run(self) -> None:
        """Whatever becomes of the log, the attempt goes on."""
        with self._path.open("rb") as file:
            while not self._ended.wait(_SECONDS_BETWEEN_LOOKS):
                self._read(file)
                try:
                    self._keep()
                except SQLAlchemyError as error:
                    _log.warning("log_waits", error=str(error))
            self._read(file)
        if self._rest:
            self._add(self._rest)
        try:
            Patience(_PATIENCE_SECONDS)(self._keep)
        except SQLAlchemyError as error:
            _log.warning("log_incomplete", fencing_token=self._token, error=str(error))

    def end(self) -> None:
        """Store what is left, once the child has ended; what takes long is not waited for."""
        self._ended.set()
        self.join(_SECONDS_AFTER_END)

    def _read(self, file: BinaryIO) -> None:
        """What is there by now; of a child that writes without end, no more."""
        left = self._path.stat().st_size - file.tell()
        while left > 0 and (piece := file.read(min(left, _PIECE_BYTES))):
            left -= len(piece)
            *lines, self._rest = (self._rest + piece).split(b"\n")
            for line in lines:
                self._add(line)
            if len(self._rest) > LONGEST_LINE:
                self._add(self._rest)
                self._rest = b""

    def _add(self, line: bytes) -> None:
        # A bar that is drawn over and over is what it was at last.
        shown = line.rstrip(b"\r").rpartition(b"\r")[2]
        # PostgreSQL has no NUL.
        self._window.add(shown.decode(errors="replace").replace("\0", "\ufffd")[:LONGEST_LINE])

    def _keep(self) -> None:
        window = self._window
        while window.fresh or window.left_out != self._left_out:
            some = dict(list(window.fresh.items())[:_LINES_AT_ONCE])
            self._store.keep(self._token, some, window.left_out)
            self._left_out = window.left_out
            for number in some:
                del window.fresh[number]
