"""Waits for news of jobs: one question to the database for all who wait, and none when nobody does.

Who waits holds neither a thread nor a connection.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, TypeVar
from uuid import UUID

import anyio.to_thread
import structlog
from anyio import CapacityLimiter
from fastapi import Query

from jobs.errors import DATABASE_ERROR
from jobs.store import Glance

SECONDS_BETWEEN_LOOKS = 0.5
LONGEST_WAIT_SECONDS = 60

_QUERIES_AT_ONCE = 4
"""Of those whom news has woken, together: other requests have the rest of the connections."""

Wait = Annotated[
    float,
    Query(
        ge=0,
        le=LONGEST_WAIT_SECONDS,
        description="Seconds to wait for news, at most; the answer comes with it, or without it "
        "when they are over, or when the service stops.",
    ),
]
IsNews = Callable[[Glance], bool]
Value = TypeVar("Value")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    is_news: IsNews
    found: asyncio.Future[Glance | None]


class Watcher:
    """One in each process, which looks while it is in `running`.

    Args:
        glances: looks at jobs, in a thread.
    """

    def __init__(self, glances: Callable[[Collection[UUID]], Mapping[UUID, Glance]]) -> None:
        self._glances = glances
        self._waiters: dict[UUID, set[_Waiter]] = {}
        self._somebody = asyncio.Event()
        self._turns = CapacityLimiter(_QUERIES_AT_ONCE)
        self._stopped = False

    @property
    def is_stopped(self) -> bool:
        """Whether nobody is to wait any longer, because the process ends."""
        return self._stopped

    async def until(self, job_id: UUID, is_news: IsNews, seconds: float) -> Glance | None:
        """The first look at a job that is news; None when there is none for so long, or at the end
        of the process. `is_news` must not raise."""
        if self._stopped:
            return None
        with self._waiting(job_id, is_news) as waiter:
            done, _ = await asyncio.wait([waiter.found], timeout=seconds)
            return waiter.found.result() if done else None

    async def read(self, query: Callable[[], Value]) -> Value:
        """What a query of somebody who was woken gives, run in a thread; some at once wait."""
        return await anyio.to_thread.run_sync(query, limiter=self._turns)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """In this block it looks, from time to time, while somebody waits; after it nobody does."""
        looking = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self.stop()
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking

    async def _run(self) -> None:
        while True:
            await self._somebody.wait()
            try:
                await self._look()
            except DATABASE_ERROR as error:
                # Who waits goes on waiting: it is caught up with when the database is back.
                _log.warning("watch_failed", error=str(error))
            except Exception:  # noqa: BLE001 - without this task everybody would wait for ever
                _log.exception("watch_failed")
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)

    def stop(self) -> None:
        """Let everybody go, and nobody wait again."""
        self._stopped = True
        for waiters in self._waiters.values():
            for waiter in waiters:
                _answer(waiter, None)

    async def _look(self) -> None:
        glances = await asyncio.to_thread(self._glances, list(self._waiters))
        for job_id, glance in glances.items():
            for waiter in self._waiters.get(job_id, ()):
                if waiter.is_news(glance):
                    _answer(waiter, glance)

    @contextmanager
    def _waiting(self, job_id: UUID, is_news: IsNews) -> Iterator[_Waiter]:
        waiter = _Waiter(is_news, asyncio.get_running_loop().create_future())
        self._waiters.setdefault(job_id, set()).add(waiter)
        self._somebody.set()
        try:
            yield waiter
        finally:
            self._waiters[job_id].remove(waiter)
            if not self._waiters[job_id]:
                del self._waiters[job_id]
            if not self._waiters:
                self._somebody.clear()


def _answer(waiter: _Waiter, glance: Glance | None) -> None:
    if not waiter.found.done():
        waiter.found.set_result(glance)
