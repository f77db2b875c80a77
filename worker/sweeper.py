"""The sweeper: takes back what dead workers held, fails what will not run, removes what expires.

Every worker runs one in a thread of its own. Any number may sweep at once: the rows are locked.
"""

import math
import threading
import time

import structlog
from sqlalchemy.exc import SQLAlchemyError

from jobs.attempts import AttemptStore
from jobs.collector import Collector
from jobs.errors import StorageUnavailableError
from jobs.settings import Settings

_log = structlog.get_logger(__name__)

_SECONDS_BETWEEN_COLLECTIONS = 3600


class Sweeper(threading.Thread):
    """Sweeps until `stopping` is set."""

    def __init__(
        self,
        settings: Settings,
        attempts: AttemptStore,
        kept: Collector,
        stopping: threading.Event,
    ) -> None:
        super().__init__(name="sweeper", daemon=True)
        self._kept = kept
        self._collected = -math.inf
        self._seconds = settings.sweep_seconds
        self._attempts = attempts
        self._stopping = stopping

    def run(self) -> None:
        """Sweep at once, then at every interval; what is away is waited out."""
        while True:
            try:
                self.sweep()
            except (SQLAlchemyError, StorageUnavailableError) as error:
                _log.warning("sweep_failed", error=str(error))
            if self._stopping.wait(self._seconds):
                return

    def sweep(self) -> None:
        """One sweep."""
        for job_id in self._attempts.expire():
            _log.warning("lease_expired", job_id=str(job_id))
        for job_id in self._attempts.fail_hopeless():
            _log.warning("job_failed", job_id=str(job_id))
        if time.monotonic() - self._collected >= _SECONDS_BETWEEN_COLLECTIONS:
            self._collected = time.monotonic()
            for expiry in self._kept.collect():
                if expiry.is_due:
                    _log.info("expired", job_id=str(expiry.job_id), size_bytes=expiry.size_bytes)
