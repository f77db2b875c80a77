"""The sweeper: takes back what dead workers held, and fails what will not run.

Every worker runs one in a thread of its own. Any number may sweep at once: the rows are locked.
"""

import threading

import structlog
from sqlalchemy.exc import SQLAlchemyError

from jobs.attempts import AttemptStore
from jobs.settings import Settings

_log = structlog.get_logger(__name__)


class Sweeper(threading.Thread):
    """Sweeps until `stopping` is set."""

    def __init__(
        self, settings: Settings, attempts: AttemptStore, stopping: threading.Event
    ) -> None:
        super().__init__(name="sweeper", daemon=True)
        self._seconds = settings.sweep_seconds
        self._attempts = attempts
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
        """One sweep."""
        for job_id in self._attempts.expire():
            _log.warning("lease_expired", job_id=str(job_id))
        for job_id in self._attempts.fail_hopeless():
            _log.warning("job_failed", job_id=str(job_id))
