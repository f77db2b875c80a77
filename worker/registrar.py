"""Tells the model registry of finished models, if the operator has named one.

Every worker runs one in a thread of its own; nothing waits for it. A registry that is away is tried
again later, and fails no job.
"""

import os
import re
import threading
from collections.abc import Callable
from typing import Any, Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError

from jobs.registrations import FinishedModel, RegistrationStore
from jobs.settings import Settings

_SECRETS = re.compile(r"//[^/@\s]+@")
"""User and password of an address, which errors repeat."""

_log = structlog.get_logger(__name__)


class Registry(Protocol):
    """Where finished models are told of."""

    def register(self, model: FinishedModel) -> dict[str, Any]:
        """Tell of a model; where it stands now. Doing it twice is doing it once."""
        ...


class Registrar(threading.Thread):
    """Registers what is due until `stopping` is set.

    Args:
        registrations: what is due.
        connect: to the registry; asked anew for each model, and may fail as the registry may.
        stopping: set when the worker ends.
        seconds: how often to look.
    """

    def __init__(
        self,
        registrations: RegistrationStore,
        connect: Callable[[], Registry],
        stopping: threading.Event,
        seconds: float,
    ) -> None:
        super().__init__(name="registrar", daemon=True)
        self._registrations = registrations
        self._connect = connect
        self._stopping = stopping
        self._seconds = seconds

    def run(self) -> None:
        """Look at once, then at every interval; the database being away is waited out."""
        while True:
            try:
                while not self._stopping.is_set() and self.register_next():
                    pass
            except SQLAlchemyError as error:
                _log.warning("registrar_failed", error=str(error))
            if self._stopping.wait(self._seconds):
                return

    def register_next(self) -> bool:
        """Try one that is due; False when none is."""
        job_id = self._registrations.take()
        if job_id is None:
            return False
        try:
            place = self._connect().register(self._registrations.model(job_id))
        except Exception as error:  # noqa: BLE001 - whatever a registry may raise, no job fails
            text = _SECRETS.sub("//", f"{type(error).__name__}: {error}")
            wait = self._registrations.failed(job_id, text)
            _log.warning(
                "registration_failed", job_id=str(job_id), error=text, again_after_seconds=wait
            )
        else:
            self._registrations.done(job_id, place)
            _log.info("registered", job_id=str(job_id), **place)
        return True


def mlflow_registry(settings: Settings) -> Registry:
    """The MLflow server of the settings; ImportError says what to install."""
    # Trying again is our own part, with a row that remembers.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    # It would tell its makers of its use.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        from worker.mlflow_registry import MlflowRegistry  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ImportError(f"{error}; pip install 'bonsai-pruning[mlflow]'") from error
    assert settings.mlflow_tracking_uri is not None
    return MlflowRegistry(
        settings.mlflow_tracking_uri, settings.mlflow_experiment, settings.artifacts_uri
    )
