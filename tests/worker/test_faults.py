"""The central faults once more, with the real child: the bytes are those of an undisturbed run.

F1 and F2 are in `test_kill.py`, F15, F17 and F25 in `test_worker.py`.
"""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from client.embedded.stack import EmbeddedStack
from jobs.connections import connect
from jobs.doorbell import Doorbell
from jobs.request import JobRequest
from jobs.settings import Settings
from jobs.storage import artifact_store
from jobs.store import JobStore
from migrations import upgrade
from tests.worker.conftest import Service, children_of
from tests.worker.test_kill import RANDOM_MASKS, digests_of, undisturbed

Requests = Callable[..., JobRequest]


def require_undisturbed(service: Service, request: JobRequest, folder: Path) -> list[str | None]:
    """That the only job has the result and the masks of an undisturbed run; how attempts ended."""
    (job,) = service.store.list(limit=2).items
    job = service.wait_final(job.id)
    assert job.state == "succeeded", job.error
    expected = undisturbed(request, folder)
    assert service.evaluated(job.id) == expected.masks_evaluated
    assert service.digests(job.id) == digests_of(expected.folder)
    return [account.attempt.outcome for account in service.store.attempts(job.id)]


def test_f3_a_frozen_worker_comes_back_with_the_real_core(
    service: Service, request_for: Requests, tmp_path: Path
) -> None:
    request = request_for(**RANDOM_MASKS)
    frozen = service.start_worker()
    job_id = service.submit(request)
    service.wait_evaluated(job_id, 20)
    processes = [*children_of(frozen.pid), frozen.pid]
    for process_id in processes:
        os.kill(process_id, signal.SIGSTOP)
    service.start_worker()
    service.wait_attempt(job_id, 2)
    for process_id in processes:
        os.kill(process_id, signal.SIGCONT)
    outcomes = require_undisturbed(service, request, tmp_path / "undisturbed")
    assert outcomes == ["lease_expired", "succeeded"]


def test_f6_the_broker_forgets_everything_with_the_real_core(
    service: Service, request_for: Requests, tmp_path: Path
) -> None:
    request = request_for(**RANDOM_MASKS)
    service.start_worker()
    job_id = service.submit(request)
    service.wait_evaluated(job_id, 20)
    redis.Redis.from_url(service.settings.redis_url).flushdb()
    outcomes = require_undisturbed(service, request, tmp_path / "undisturbed")
    assert outcomes == ["succeeded"]


@pytest.fixture
def postgres() -> Iterator[EmbeddedStack]:
    """A server that this test may restart."""
    # Not below pytest's folders: their paths are too long for sockets on some systems.
    with (
        tempfile.TemporaryDirectory(prefix="bonsai-", ignore_cleanup_errors=True) as folder,
        EmbeddedStack(Path(folder), durable=True, valkey=False) as stack,
    ):
        upgrade(stack.database_url)
        yield stack


@pytest.fixture
def beside(postgres: EmbeddedStack, settings: Settings, service: Service) -> Service:
    """The service over that server; its workers end with those of the usual one."""
    changed = settings.model_copy(update={"database_url": postgres.database_url})
    engine = connect(changed, connections=2)
    files, bell = artifact_store(changed), Doorbell(changed)
    return Service(changed, engine, JobStore(engine), files, bell, service.log, service.workers)


def test_f11_the_database_is_killed_and_started_again_with_the_real_core(
    postgres: EmbeddedStack, beside: Service, request_for: Requests, tmp_path: Path
) -> None:
    request = request_for(**RANDOM_MASKS)
    beside.start_worker(lease_seconds="30")
    job_id = beside.submit(request)
    beside.wait_evaluated(job_id, 20)
    postgres.kill()
    time.sleep(1)
    postgres.start()
    beside.engine.dispose()
    outcomes = require_undisturbed(beside, request, tmp_path / "undisturbed")
    # Within its lease: the child waited, and went on.
    assert outcomes == ["succeeded"]
    beside.doorbell.close()
    beside.engine.dispose()
