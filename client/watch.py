"""Follows a job over everything that ends a connection, without a gap and without a repetition."""

import time
from collections.abc import Callable, Iterable

import httpx

from client.answers import require_success
from client.effects import Call, Item, Open, Operation, Pause, Piece
from client.errors import ServiceError, UnreachableServiceError
from client.responses import Event, EventPage, Job, Progress
from client.sse import EventStream, Message
from client.tries import Patience

SILENT_SECONDS = 45.0
"""A stream that says nothing for so long, not even that it is still there, is lost."""

POLL_SECONDS = 10.0
"""How long a look waits for news where streams do not come through."""

_NO_STREAMS = {404, 405, 406, 501}
"""Statuses of an address where no streams are."""

News = Event | Progress


class StreamUnavailableError(Exception):
    """No stream comes through from this service, whatever stands in between."""


class JobWatch:
    """The events of a job, and its progress as it changes, until it has ended.

    Args:
        path: of the job.
        after: sequence of the last event that is known already.
        patience: how long a service that is away is waited for.
    """

    def __init__(self, path: str, after: int, patience: Patience) -> None:
        self._path = path
        self._last = after
        self._patience = patience
        self._pause_seconds = 1.0
        self._cursor: str | None = None
        self._progress: Progress | None = None
        self._ended = False

    def run(self) -> Operation[None]:
        """Its items are the news."""
        look: Callable[[], Operation[None]] = self._streamed
        while not self._ended:
            try:
                yield from look()
            except StreamUnavailableError:
                look = self._polled
            except (UnreachableServiceError, ServiceError) as error:
                yield self._patience.bear(error)

    def _streamed(self) -> Operation[None]:
        """What comes over one connection."""
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if self._last:
            headers["Last-Event-ID"] = str(self._last)
        stream = EventStream()
        try:
            response: httpx.Response = yield Open(
                f"{self._path}/events/stream", headers, SILENT_SECONDS
            )
            self._require_stream(response)
            self._patience.answered()
            while (piece := (yield Piece())) is not None:
                for message in stream.messages(piece):
                    yield from self._heard(message)
        except UnreachableServiceError as error:
            if isinstance(error.reason, httpx.ReadTimeout) and not stream.heard:
                # Something in between waits for the end of the response before it hands it on.
                raise StreamUnavailableError from error
            raise
        if not self._ended:
            # The service stops, and comes back.
            yield Pause(self._pause_seconds)

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

    def _heard(self, message: Message) -> Operation[None]:
        if message.retry is not None:
            self._pause_seconds = message.retry / 1000
        if message.event == "end":
            self._ended = True
        elif message.event == "progress":
            yield Item(Progress.model_validate_json(message.data))
        elif not message.event and message.data:
            yield from self._new([Event.model_validate_json(message.data)])

    def _new(self, events: Iterable[Event]) -> Operation[None]:
        for event in events:
            if event.sequence > self._last:
                self._last = event.sequence
                yield Item(event)

    def _polled(self) -> Operation[None]:
        """What comes with one look."""
        began = time.monotonic()
        query = {"wait": POLL_SECONDS} | ({"cursor": self._cursor} if self._cursor else {})
        path = f"{self._path}/events"
        page: EventPage = yield Call(EventPage, "GET", path, {"params": query}, POLL_SECONDS)
        self._patience.answered()
        self._cursor = page.last_cursor
        yield from self._new(page.items)
        job: Job = yield Call(Job, "GET", self._path)
        if job.progress != self._progress:
            self._progress = job.progress
            yield Item(job.progress)
        self._ended = page.has_ended
        if not self._ended and not page.items:
            # A service that stops does not wait.
            yield Pause(max(0.0, self._pause_seconds - (time.monotonic() - began)))
