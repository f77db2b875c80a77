"""Follows a job over everything that ends a connection, without a gap and without a repetition."""

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from client.answers import require_success
from client.errors import ServiceError, UnexpectedAnswerError, UnreachableServiceError
from client.responses import Event, EventPage, Job, Progress
from client.sse import Message, messages
from client.tries import Patience

SILENT_SECONDS = 45.0
"""A stream that says nothing for so long, not even that it is still there, is lost."""

POLL_SECONDS = 10.0
"""How long a look waits for news where streams do not come through."""

_NO_STREAMS = {404, 405, 406, 501}
"""Statuses of an address where no streams are."""

News = Event | Progress
Response = TypeVar("Response", bound=BaseModel)


class StreamUnavailableError(Exception):
    """No stream comes through from this service, whatever stands in between."""


class JobWatch:
    """The events of a job, and its progress as it changes, until it has ended.

    Args:
        http: of the service.
        ask: gives an answer as a value; `client.service.Client` has it.
        path: of the job.
        after: sequence of the last event that is known already.
        patience: how long a service that is away is waited for.
    """

    def __init__(
        self,
        http: httpx.Client,
        ask: Callable[..., Any],
        path: str,
        after: int,
        patience: Patience,
    ) -> None:
        self._http = http
        self._ask = ask
        self._path = path
        self._last = after
        self._patience = patience
        self._pause_seconds = 1.0
        self._cursor: str | None = None
        self._progress: Progress | None = None
        self._ended = False

    def __iter__(self) -> Iterator[News]:
        look: Callable[[], Iterator[News]] = self._streamed
        while not self._ended:
            try:
                yield from look()
            except StreamUnavailableError:
                look = self._polled
            except (UnreachableServiceError, ServiceError) as error:
                self._patience.bear(error)

    def _streamed(self) -> Iterator[News]:
        """What comes over one connection."""
        heard = False
        headers = {"Accept": "text/event-stream"}
        if self._last:
            headers["Last-Event-ID"] = str(self._last)
        timeout = httpx.Timeout(self._http.timeout.connect, read=SILENT_SECONDS)
        address = f"{self._path}/events/stream"
        try:
            with self._http.stream("GET", address, headers=headers, timeout=timeout) as response:
                self._require_stream(response)
                self._patience.answered()
                for message in messages(response.iter_bytes()):
                    heard = True
                    yield from self._heard(message)
        except httpx.TransportError as error:
            if isinstance(error, httpx.ReadTimeout) and not heard:
                # Something in between waits for the end of the response before it hands it on.
                raise StreamUnavailableError from error
            raise UnreachableServiceError(str(self._http.base_url), error) from error
        if not self._ended:
            # The service stops, and comes back.
            time.sleep(self._pause_seconds)

    def _require_stream(self, response: httpx.Response) -> None:
        if response.status_code == httpx.codes.NO_CONTENT:
            self._ended = True
            return
        try:
            require_success(response)
        except ServiceError as error:
            if error.problem.status in _NO_STREAMS and error.problem.code != "job_not_found":
                raise StreamUnavailableError from error
            raise
        if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
            raise StreamUnavailableError

    def _heard(self, message: Message) -> Iterator[News]:
        if message.retry is not None:
            self._pause_seconds = message.retry / 1000
        if message.event == "end":
            self._ended = True
        elif message.event == "progress":
            yield self._understood(Progress, message)
        elif not message.event and message.data:
            event = self._understood(Event, message)
            if event.sequence > self._last:
                self._last = event.sequence
                yield event

    def _polled(self) -> Iterator[News]:
        """What comes with one look."""
        began = time.monotonic()
        query = {"wait": POLL_SECONDS} | ({"cursor": self._cursor} if self._cursor else {})
        page: EventPage = self._ask(EventPage, "GET", f"{self._path}/events", params=query)
        self._patience.answered()
        self._cursor = page.last_cursor
        for event in page.items:
            if event.sequence > self._last:
                self._last = event.sequence
                yield event
        job: Job = self._ask(Job, "GET", self._path)
        if job.progress != self._progress:
            self._progress = job.progress
            yield job.progress
        self._ended = page.has_ended
        if not self._ended and not page.items:
            # A service that stops does not wait.
            time.sleep(max(0.0, self._pause_seconds - (time.monotonic() - began)))

    def _understood(self, model: type[Response], message: Message) -> Response:
        try:
            return model.model_validate_json(message.data)
        except ValidationError as error:
            raise UnexpectedAnswerError(str(self._http.base_url), str(error)) from error
