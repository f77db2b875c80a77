"""Tells the database that this worker is there, and hears whether it is to leave."""

import os
import signal
import threading

import structlog
from sqlalchemy.exc import SQLAlchemyError

from jobs.workers import WorkerStore
from worker.device import DeviceWatch

_log = structlog.get_logger(__name__)

_BEATS_MISSED = 3
"""A worker that has missed so many counts as lost. Its job does not depend on it: that has a lease
of its own."""


class Presence(threading.Thread):
    """Beats until `stopping` is set; a wish to leave ends the process as SIGTERM does."""

    def __init__(
        self,
        workers: WorkerStore,
        name: str,
        device: DeviceWatch,
        seconds: float,
        stopping: threading.Event,
    ) -> None:
        super().__init__(name="presence", daemon=True)
        self._workers = workers
        self._worker = name
        self._device = device
        self._seconds = seconds
        self._stopping = stopping

    def run(self) -> None:
        """Say so at once, then at every interval; the database being away is waited out."""
        say = self._arrive
        while True:
            try:
                say()
                say = self._beat
            except SQLAlchemyError as error:
                _log.warning("beat_failed", error=str(error))
            if self._stopping.wait(self._seconds):
                return

    def _arrive(self) -> None:
        self._workers.arrive(self._worker, self._device.latest, self._seconds * _BEATS_MISSED)

    def _beat(self) -> None:
        silence = self._seconds * _BEATS_MISSED
        if self._workers.beat(self._worker, self._device.latest, silence):
            _log.info("drained")
            os.kill(os.getpid(), signal.SIGTERM)

    def leave(self) -> None:
        """The last word, when the job has been given back."""
        try:
            self._workers.leave(self._worker)
        except SQLAlchemyError as error:
            _log.warning("leave_failed", error=str(error))
