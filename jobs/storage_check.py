"""Whether files can be stored: found out by storing one, and not again for a while."""

import os
import socket
import tempfile
import threading
import time
from pathlib import Path

import structlog

from jobs.artifacts import ArtifactStore

_SECONDS_BETWEEN_TRIES = 10.0

_log = structlog.get_logger(__name__)


class StorageCheck:
    """Tells whether an artifact store takes files; any number of threads may ask."""

    def __init__(self, files: ArtifactStore, seconds: float = _SECONDS_BETWEEN_TRIES) -> None:
        self._files = files
        self._seconds = seconds
        self._lock = threading.Lock()
        self._until = 0.0
        self._works = False

    def works(self) -> bool:
        """Whether a small file could be stored, at most some seconds ago."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._works = self._try()
                self._until = time.monotonic() + self._seconds
            return self._works

    def _try(self) -> bool:
        # A folder of this process's own: what another one tries at the same time stays.
        folder = f"checks/{socket.gethostname()}-{os.getpid()}"
        try:
            with tempfile.TemporaryDirectory() as scratch:
                source = Path(scratch) / "check"
                source.write_bytes(b"is there room?")
                self._files.put(f"{folder}/check", source)
            self._files.delete(folder)
        except Exception as error:  # noqa: BLE001 - each kind of store fails in its own way
            _log.warning("storage_failed", error=str(error))
            return False
        return True
