"""The events and the progress of a job as server-sent events, from what is there to the end.

The encoding is FastAPI's. Its own response for them is not used: it answers before a job is looked
for, bears a reader that takes nothing for ever, and does not end when the process is told to stop.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

import structlog
from fastapi.sse import format_sse_event
from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from api.schemas import Event, StreamEnd
from api.watch import Watcher
from jobs import records
from jobs.cursors import cursor_of
from jobs.errors import DATABASE_UNREACHABLE
from jobs.progress import Progress
from jobs.store import Glance, JobStore

KEEP_ALIVE_SECONDS = 15.0
RETRY_MILLISECONDS = 2000
SECONDS_BETWEEN_PROGRESS = 1.0
SEND_SECONDS = 30.0
"""A reader for which a message cannot be sent for so long is cut off."""

_EVENTS_AT_ONCE = 100

_log = structlog.get_logger(__name__)


class EventStream(StreamingResponse):
    """A response of server-sent events that cuts off a reader that takes nothing."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[bytes]) -> None:
        # X-Accel-Buffering: nginx would keep messages until it has many.
        super().__init__(content, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the content ends, or the reader is gone, or takes nothing for too long."""

        async def timed(message: Message) -> None:
            async with asyncio.timeout(SEND_SECONDS):
                await send(message)

        try:
            await super().__call__(scope, receive, timed)
        except TimeoutError:
            # The server closes the connection of a response that was begun and not ended.
            _log.warning("slow_reader_cut", path=scope["path"])


class JobFeed:
    """What a reader of a job's stream is still to be told.

    Args:
        sent: sequence of the last event that the reader has.
    """

    def __init__(self, job_id: UUID, sent: int, store: JobStore, watcher: Watcher) -> None:
        self._job_id = job_id
        self._sent = sent
        self._store = store
        self._watcher = watcher
        self._shown: Mapping[str, Any] | None = None
        self._shown_at = -SECONDS_BETWEEN_PROGRESS

    async def messages(self, glance: Glance) -> AsyncIterator[bytes]:
        """All that has happened since, all that happens, and at the job's end that it has ended."""
        yield format_sse_event(retry=RETRY_MILLISECONDS)
        while True:
            try:
                async for message in self._news(glance):
                    yield message
                if glance.state.is_final:
                    yield format_sse_event(
                        event="end", data_str=_json(StreamEnd(state=glance.state))
                    )
                    return
            except DATABASE_UNREACHABLE as error:
                _log.warning("stream_waits", job_id=str(self._job_id), error=str(error))
            while (found := await self._next()) is None:
                if self._watcher.is_stopped:
                    return
                yield format_sse_event(comment="still here")
            glance = found

    async def _next(self) -> Glance | None:
        return await self._watcher.until(self._job_id, self._is_news, KEEP_ALIVE_SECONDS)

    def _is_news(self, glance: Glance) -> bool:
        if glance.last_event > self._sent or glance.state.is_final:
            return True
        due = time.monotonic() >= self._shown_at + SECONDS_BETWEEN_PROGRESS
        return due and glance.progress != self._shown

    async def _news(self, glance: Glance) -> AsyncIterator[bytes]:
        while self._sent < glance.last_event:
            for event in await self._watcher.read(self._events):
                self._sent = event.sequence
                data = _json(Event.model_validate(event))
                yield format_sse_event(id=str(event.sequence), data_str=data)
        if glance.progress != self._shown:
            self._shown, self._shown_at = glance.progress, time.monotonic()
            data = _json(Progress.model_validate(glance.progress))
            yield format_sse_event(event="progress", data_str=data)

    def _events(self) -> list[records.Event]:
        after = cursor_of([self._sent])
        return list(self._store.events(self._job_id, limit=_EVENTS_AT_ONCE, cursor=after).items)


def _json(model: BaseModel) -> str:
    """In ASCII: some readers take other characters for line breaks too, such as U+2028."""
    return json.dumps(model.model_dump(mode="json"))
