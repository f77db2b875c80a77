"""A service whose workers run the engine of faults."""

import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
from sqlalchemy import make_url

from jobs.request import JobRequest
from jobs.settings import Settings
from jobs.states import JobState
from tests.faults.invariants import require_invariants
from tests.faults.proxy import Proxy
from tests.worker.conftest import Service, service

__all__ = ["service"]

ENGINE = "tests.faults.engine"


class Night:
    """Jobs with faults, workers that come and go, and what must hold in the morning."""

    def __init__(self, service: Service, body: dict[str, Any]) -> None:
        self.service = service
        self.start_worker = partial(service.start_worker, child_module=ENGINE, lease_seconds="2")
        self.jobs: list[UUID] = []
        self._body = body

    def submit(self, **faults: str) -> UUID:
        """A job with labels that ask for faults; each has a seed of its own."""
        request = {**self._body, "labels": faults, "pruning": {"seed": len(self.jobs)}}
        self.jobs.append(self.service.submit(JobRequest.model_validate(request)))
        return self.jobs[-1]

    def succeed(self, seconds: float = 60) -> None:
        """Wait until every job has ended, which shall be well, and look at all of them."""
        for job_id in self.jobs:
            job = self.service.wait(job_id, lambda job: job.finished_at is not None, seconds)
            assert job.state == JobState.SUCCEEDED, job.error
        self.check()

    def check(self) -> None:
        """See `invariants`."""
        require_invariants(self.service, self.jobs)


@pytest.fixture
def night(service: Service, body: dict[str, Any]) -> Iterator[Night]:
    found = Night(service, body)
    yield found
    found.check()


def connector(path: str | None, host: str | None, port: int) -> Callable[[], socket.socket]:
    def connect() -> socket.socket:
        if path is None:
            return socket.create_connection((host or "127.0.0.1", port))
        found = socket.socket(socket.AF_UNIX)
        found.connect(path)
        return found

    return connect


@pytest.fixture
def database(settings: Settings) -> Iterator[Proxy]:
    url = make_url(settings.database_url)
    folder = url.query.get("host")
    path = f"{folder}/.s.PGSQL.{url.port or 5432}" if folder else None
    proxy = Proxy(connector(path, url.host, url.port or 5432))
    yield proxy
    proxy.close()


@pytest.fixture
def broker(settings: Settings) -> Iterator[Proxy]:
    url = urlsplit(settings.redis_url)
    path = url.path if url.scheme == "unix" else None
    proxy = Proxy(connector(path, url.hostname, url.port or 6379))
    yield proxy
    proxy.close()


def through(database: Proxy, settings: Settings) -> str:
    """The database's URL by way of the proxy."""
    url = make_url(settings.database_url).set(host="127.0.0.1", port=database.port, query={})
    return url.render_as_string(hide_password=False)


def broker_through(broker: Proxy, settings: Settings) -> str:
    url = urlsplit(settings.redis_url)
    number = parse_qs(url.query).get("db", ["0"])[0] if url.scheme == "unix" else url.path[1:]
    return f"redis://127.0.0.1:{broker.port}/{number}"
