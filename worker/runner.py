"""The thread that runs jobs: when a bell rings, and otherwise from time to time.

Celery's own thread is left to the broker, so that a job of hours never keeps it from noticing that
the connection is gone. A bell makes a job start at once; without one, because the broker is away or
has forgotten it, the job starts when this thread looks next.
"""

import threading

import structlog
from sqlalchemy.exc import SQLAlchemyError

from worker.supervisor import Supervisor

_log = structlog.get_logger(__name__)


class Runner(threading.Thread):
    """Runs jobs until `stopping` is set.

    Args:
        supervisor: does the work.
        bell: set when there is work; cleared here.
        stopping: see `Supervisor`.
        seconds: how often to look without a bell.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        bell: threading.Event,
        stopping: threading.Event,
        seconds: float,
    ) -> None:
        # No daemon: the process waits for it, so that a job is given back before the end.
        super().__init__(name="runner")
        self._supervisor = supervisor
        self._bell = bell
        self._stopping = stopping
        self._seconds = seconds

    def run(self) -> None:
        """Whatever goes wrong with one job, or the database, the next look is made."""
        while not self._stopping.is_set():
            try:
                self._supervisor.work()
            except SQLAlchemyError as error:
                _log.warning("database_failed", error=str(error))
            except Exception:  # noqa: BLE001 - the row tells what became of the job
                _log.exception("job_failed_to_run")
            self._bell.wait(self._seconds)
            self._bell.clear()
