"""Sends what webhooks are to hear, by the Standard Webhooks specification.

Threads of every API process look for what is due; the rows keep them apart (`jobs.deliveries`).
"""

import json
import math
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Self

import structlog
from standardwebhooks.webhooks import Webhook as Signer

from api.outbound import Answer, NoAnswerError, Outbound, RefusedUrlError
from api.schemas import job_path
from jobs.deliveries import DeliveryQueue, Outcome, Taken
from jobs.errors import DATABASE_ERROR
from jobs.patience import Patience

_THREADS = 4
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_BETWEEN_CLEANINGS = 3600.0
_SECONDS_TO_STOP = 2.0

_SECONDS_AROUND_A_POST = 60.0
"""For the name to be resolved before it, and its outcome to be written after it."""

_PATIENCE_SECONDS = 30.0
_LONGEST_LOCATION = 200
_MOST_DIGITS = 9

_log = structlog.get_logger(__name__)


class Sender:
    """Sends deliveries, and forgets those of `keep` ago, within a `with` block.

    What is under way at its end is not waited for long: another sender does it again.
    """

    def __init__(self, deliveries: DeliveryQueue, outbound: Outbound, keep: timedelta) -> None:
        self._deliveries = deliveries
        self._outbound = outbound
        self._keep = keep
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._send, name=f"sender-{number}", daemon=True)
            for number in range(_THREADS)
        ]
        self._threads.append(threading.Thread(target=self._clean, name="cleaner", daemon=True))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        end = time.monotonic() + _SECONDS_TO_STOP
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def send_next(self) -> bool:
        """Send the delivery that is due, if there is one, and write how that has ended."""
        taken = self._deliveries.take(self._outbound.timeout_seconds + _SECONDS_AROUND_A_POST)
        if taken is None:
            return False
        outcome = self._sent(taken)
        _log.info(
            "webhook_sent" if outcome.error is None else "webhook_failed",
            delivery_id=str(taken.id),
            about=taken.event,
            attempt=taken.attempt,
            status=outcome.status,
            error=outcome.error,
        )
        # Written twice, where the database's answer was lost, it is the same as once.
        Patience(_PATIENCE_SECONDS)(lambda: self._deliveries.record(taken, outcome))
        return True

    def _sent(self, taken: Taken) -> Outcome:
        content = payload(taken)
        try:
            answer = self._outbound.post(taken.url, content.encode(), signed(taken, content))
        except (RefusedUrlError, NoAnswerError) as error:
            return Outcome(str(error))
        return outcome_of(answer)

    def _send(self) -> None:
        while not self._stopping.is_set():
            try:
                if self.send_next():
                    continue
            except DATABASE_ERROR as error:
                _log.warning("webhooks_wait", error=str(error))
            except Exception:  # noqa: BLE001 - logged, and the next one may go well
                _log.exception("webhook_not_sent")
            self._stopping.wait(_SECONDS_BETWEEN_LOOKS)

    def _clean(self) -> None:
        while True:
            try:
                self._deliveries.forget(self._keep)
            except DATABASE_ERROR as error:
                _log.warning("deliveries_kept", error=str(error))
            if self._stopping.wait(_SECONDS_BETWEEN_CLEANINGS):
                return


def payload(taken: Taken) -> str:
    """What is sent: the event, when it happened, and where to ask for more."""
    data = dict(taken.data)
    if "job_id" in data:
        path = job_path(data["job_id"])
        data["links"] = {"self": path, "events": f"{path}/events", "artifacts": f"{path}/artifacts"}
    return json.dumps(
        {"type": taken.event, "timestamp": taken.created_at.isoformat(), "data": data}
    )


def signed(taken: Taken, content: str) -> Mapping[str, str]:
    """The headers of a message, with a signature by each of the secrets."""
    name = str(taken.id)
    signatures = [Signer(secret).sign(name, taken.at, content) for secret in taken.secrets]
    return {
        "Content-Type": "application/json",
        "User-Agent": "Bonsai",
        "webhook-id": name,
        "webhook-timestamp": str(math.floor(taken.at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def outcome_of(answer: Answer) -> Outcome:
    """What an answer means: only 2xx is an arrival."""
    error = None
    retry_after = timedelta()
    if 300 <= answer.status < 400:
        location = answer.headers.get("location", "")[:_LONGEST_LOCATION]
        error = (
            f"redirected ({answer.status}) to {location!r}, which is not followed: change the URL"
        )
    elif not 200 <= answer.status < 300:
        error = f"answered {answer.status}"
    if answer.status in {429, 503}:
        retry_after = _retry_after(answer.headers.get("retry-after", ""))
    return Outcome(
        error=error,
        status=answer.status,
        response=_storable(answer.body.decode("utf-8", "replace")),
        retry_after=retry_after,
        gone=answer.status == 410,
    )


def _storable(text: str) -> str:
    """PostgreSQL cannot store NUL characters."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _retry_after(value: str) -> timedelta:
    """Seconds, or a date; anything else asks for nothing."""
    if value.isascii() and value.isdecimal():
        return timedelta(seconds=int(value[:_MOST_DIGITS]))
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return timedelta()
    return at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)
