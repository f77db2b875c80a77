"""The holder's side of a lease: renewing it, and the answer to "shall I go on?"."""

import time
from datetime import datetime
from enum import StrEnum

import structlog
from sqlalchemy.exc import SQLAlchemyError

from jobs.attempts import AttemptStore, Claim
from jobs.errors import LeaseLostError
from jobs.settings import Settings
from jobs.states import JobState

_log = structlog.get_logger(__name__)

# The holder gives up before the database does, so that nobody else has the job by then.
_OWN_SHARE = 2 / 3


class Ending(StrEnum):
    """Why a child is asked to stop before it is done."""

    CANCELLED = "cancelled"
    PAUSED = "paused"
    DEADLINE_PASSED = "deadline_passed"
    WINDOW_CLOSED = "window_closed"
    DRAINED = "drained"
    STALLED = "stalled"
    DEVICE_FAILED = "device_failed"


_WISHED = {JobState.CANCELLING: Ending.CANCELLED, JobState.PAUSING: Ending.PAUSED}


class Lease:
    """A lease that is renewed when it is asked for wishes often enough.

    Attributes:
        missed: the job's deadline, once it has passed.
    """

    missed: datetime | None = None

    def __init__(self, attempts: AttemptStore, claim: Claim, settings: Settings) -> None:
        self._attempts = attempts
        self._claim = claim
        self._seconds = settings.lease_seconds
        self._interval = settings.heartbeat_seconds
        self._renewed = self._tried = time.monotonic()

    def wish(self) -> Ending | None:
        """Renew when it is time; whether the job is wished to end.

        The database being away is borne until the holder's own share of the lease is over.

        Raises:
            LeaseLostError: the job is somebody else's, or the lease could not be renewed in time.
        """
        now = time.monotonic()
        if now - self._tried < self._interval:
            return None
        self._tried = now
        try:
            renewal = self._attempts.renew(self._claim, self._seconds)
        except SQLAlchemyError as error:
            _log.warning("heartbeat_failed", error=str(error))
            if time.monotonic() - self._renewed > self._seconds * _OWN_SHARE:
                raise LeaseLostError(self._claim.job_id, self._claim.fencing_token) from error
            return None
        self._renewed = now
        self.missed = renewal.missed
        if renewal.state in _WISHED:
            return _WISHED[renewal.state]
        if renewal.missed is not None:
            return Ending.DEADLINE_PASSED
        return Ending.WINDOW_CLOSED if renewal.window_closed else None
