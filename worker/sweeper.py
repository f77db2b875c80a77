"""The sweeper: takes back what dead workers held, fails what will not run, rings for the rest.

Every worker runs one in a thread, since the main thread is busy for hours. Any number may sweep at
once: the rows are locked, and bells are harmless.
"""

import threading

import structlog
from sqlalchemy.exc import SQLAlchemyError

from jobs.attempts import AttemptStore
from jobs.doorbell import Doorbell
from jobs.settings import Settings

_log = structlog.get_logger(__name__)

_WAITING_AT_MOST = 100


class Sweeper(threading.Thread):
    """Sweeps until `stopping` is set."""

    def __init__(
        self,
        settings: Settings,
        attempts: AttemptStore,
        doorbell: Doorbell,
        stopping: threading.Event,
    ) -> None:
        super().__init__(name="sweeper", daemon=True)
        self._seconds = settings.sweep_seconds
        self._attempts = attempts
        self._doorbell = doorbell
        self._stopping = stopping

    def run(self) -> None:
        """Sweep at once, then at every interval; the database being away is waited out."""
        while True:
            try:
                self.sweep()
            except SQLAlchemyError as error:
                _log.warning("sweep_failed", error=str(error))
            if self._stopping.wait(self._seconds):
                return

    def sweep(self) -> None:
        """One sweep. Rings as often as there are waiting jobs without a bell in the queue."""
        for job_id in self._attempts.expire():
            _log.warning("lease_expired", job_id=str(job_id))
        for job_id in self._attempts.fail_hopeless():
            _log.warning("job_failed", job_id=str(job_id))
        waiting = self._attempts.waiting(_WAITING_AT_MOST)
        if not waiting:
            return
        pending = self._doorbell.pending()
        if pending is None:
            return
        for job_id in waiting[pending:]:
            self._doorbell.ring(job_id)
