"""A service whose workers run the engine of faults."""

from collections.abc import Iterator
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from jobs.request import JobRequest
from jobs.states import JobState
from tests.faults.invariants import require_invariants
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
