"""Servers that are away, cut off, or answer too late."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from jobs.connections import connect_for_migrations
from jobs.settings import Settings
from jobs.states import JobState
from tests.faults.conftest import Night, broker_through, through
from tests.faults.proxy import Proxy
from tests.faults.test_processes import outcomes

LEASE_SECONDS = 6


def test_f11_the_database_is_away_for_less_than_a_lease(
    night: Night, database: Proxy, settings: Settings
) -> None:
    night.start_worker(database_url=through(database, settings), lease_seconds=str(LEASE_SECONDS))
    job_id, other = night.submit(), night.submit()
    night.service.wait_evaluated(job_id, 10)
    database.cut()
    time.sleep(1.5)
    database.mend()
    night.succeed()
    # Nothing was lost: neither the mask in flight nor the process.
    assert outcomes(night, job_id) == outcomes(night, other) == ["succeeded"]


@pytest.mark.parametrize("how", ["cut", "silent"])
def test_f13_a_worker_is_cut_off_for_longer_than_its_lease(
    night: Night, database: Proxy, settings: Settings, how: str
) -> None:
    night.start_worker(database_url=through(database, settings))
    job_id = night.submit()
    night.service.wait_evaluated(job_id, 10)
    if how == "cut":
        database.cut()
    else:
        database.silent = True
    night.start_worker()
    night.service.wait(job_id, lambda job: job.attempts == 2)
    database.mend()
    night.succeed()
    assert outcomes(night, job_id) == ["lease_expired", "succeeded"]
    assert night.service.store.show(job_id).crashes == 0


def test_f13_a_child_that_cannot_write_is_not_charged_to_its_job(
    night: Night, database: Proxy, settings: Settings
) -> None:
    """Longer than the child is patient, and again: as often as a poisoned job may crash."""
    night.start_worker(database_url=through(database, settings))
    job_id = night.submit()
    for attempt in range(1, 4):
        night.service.wait(job_id, lambda job, number=attempt: job.attempts >= number)
        night.service.wait(job_id, lambda job: job.fencing_token is not None)
        database.cut()
        time.sleep(3)
        database.mend()
    night.succeed()
    assert "crashed" not in outcomes(night, job_id)
    assert night.service.store.show(job_id).crashes == 0


@pytest.mark.parametrize(
    ("words", "masks"),
    [
        (b"pg_advisory_xact_lock", 0),  # claim; its commit follows
        (b"INSERT INTO evaluations", 5),
        (b"INSERT INTO artifacts", 60),
    ],
)
def test_f12_the_reply_to_a_write_is_lost(
    night: Night, database: Proxy, settings: Settings, words: bytes, masks: int
) -> None:
    """The connection is cut at the words; at each commit after them, the next test."""
    night.start_worker(database_url=through(database, settings), lease_seconds=str(LEASE_SECONDS))
    database.swallow_reply_to(words)
    job_id = night.submit()
    night.succeed()
    assert database.swallowed
    assert night.service.evaluated(job_id) == 60
    assert night.service.store.show(job_id).crashes == 0


@pytest.mark.parametrize("masks", [0, 1, 20, 59])
def test_f12_the_reply_to_a_commit_is_lost(
    night: Night, database: Proxy, settings: Settings, masks: int
) -> None:
    night.start_worker(database_url=through(database, settings), lease_seconds=str(LEASE_SECONDS))
    job_id = night.submit()
    night.service.wait_evaluated(job_id, masks)
    database.swallow_reply_to(b"COMMIT")
    night.succeed()
    assert database.swallowed
    assert night.service.store.show(job_id).crashes == 0


def test_f7_the_broker_is_away(night: Night, broker: Proxy, settings: Settings) -> None:
    night.start_worker(redis_url=broker_through(broker, settings))
    running = night.submit()
    night.service.wait_evaluated(running, 3)
    broker.cut()
    waiting = night.submit()
    # What runs does not notice, and the worker goes on with what waits without hearing of it.
    for job_id in (running, waiting):
        assert night.service.wait_final(job_id).state == JobState.SUCCEEDED
    broker.mend()
    night.submit()
    night.succeed()


def test_f8_the_broker_is_half_open(night: Night, broker: Proxy, settings: Settings) -> None:
    night.start_worker(redis_url=broker_through(broker, settings))
    night.submit()
    night.succeed()
    broker.silent = True
    time.sleep(1)
    broker.cut()
    broker.mend()
    night.submit()
    night.succeed()


def test_f9_the_broker_is_half_open_while_a_job_runs(
    night: Night, broker: Proxy, settings: Settings
) -> None:
    night.start_worker(redis_url=broker_through(broker, settings))
    running = night.submit()
    night.service.wait_evaluated(running, 3)
    broker.silent = True
    waiting = night.submit()
    for job_id in (running, waiting):
        assert night.service.wait_final(job_id).state == JobState.SUCCEEDED
    night.check()


StartApi = Callable[[], subprocess.Popen[bytes]]


@pytest.fixture
def start_api(
    night: Night, broker: Proxy, database: Proxy, settings: Settings
) -> Iterator[StartApi]:
    """Starts an API whose broker takes connections and never answers."""
    broker.silent = True
    environment = {
        **os.environ,
        "BONSAI_DATABASE_URL": through(database, settings),
        "BONSAI_REDIS_URL": broker_through(broker, settings),
        "BONSAI_DATA_DIR": str(settings.data_dir),
    }
    command = [sys.executable, "-m", "uvicorn", "--factory", "api.app:create_app"]
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        with night.service.log.open("ab") as log:
            process = subprocess.Popen(
                [*command, "--port", str(free_port())], env=environment, stdout=log, stderr=log
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def address(process: subprocess.Popen[bytes]) -> str:
    """Where it listens, when it does."""
    assert isinstance(process.args, list)
    url = f"http://127.0.0.1:{process.args[-1]}"
    while True:
        with suppress(httpx.TransportError):
            httpx.get(f"{url}/healthz")
            return url
        time.sleep(0.05)


def test_f26_the_api_is_killed_before_it_rings(
    night: Night, start_api: StartApi, body: dict[str, Any]
) -> None:
    api = start_api()
    answer = httpx.post(f"{address(api)}/v1/jobs", json=body, timeout=30)
    api.kill()
    assert answer.status_code == 201
    job_id = UUID(answer.json()["id"])
    night.jobs.append(job_id)
    assert night.service.doorbell.pending() == 0
    night.start_worker()
    night.succeed()


KEY = {"Idempotency-Key": "nightly-2026-12-01"}


def submit(api: subprocess.Popen[bytes], body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{address(api)}/v1/jobs", json=body, headers=KEY, timeout=30)


def require_replay(night: Night, answer: httpx.Response) -> None:
    """The only job there is, made before, which runs once and well."""
    assert answer.status_code == 201, answer.text
    assert answer.headers["Idempotency-Replayed"] == "true"
    (job,) = night.service.store.list(limit=10).items
    assert answer.json()["id"] == str(job.id)
    night.jobs.append(job.id)
    night.start_worker()
    night.succeed()


def test_f27_the_api_is_killed_after_the_commit_and_before_the_reply(
    night: Night, start_api: StartApi, body: dict[str, Any], settings: Settings
) -> None:
    """A lock on what the reply is made of holds it up, when the job is committed already."""
    api, other = start_api(), start_api()
    address(api)
    with (
        ThreadPoolExecutor(1) as pool,
        connect_for_migrations(settings.database_url).begin() as blocker,
    ):
        blocker.execute(text("LOCK TABLE usages"))
        answer = pool.submit(submit, api, body)
        while not night.service.store.list(limit=1).items:
            time.sleep(0.01)
        api.kill()
        with pytest.raises(httpx.TransportError):
            answer.result()
    require_replay(night, submit(other, body))


def test_f27_the_reply_to_the_commit_is_lost(
    night: Night, start_api: StartApi, body: dict[str, Any], database: Proxy
) -> None:
    """The API cannot know whether the job is there, and says to try again."""
    api = start_api()
    database.swallow_reply_to(b"COMMIT", after=b"INSERT INTO jobs")
    answer = submit(api, body)
    assert database.swallowed
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unreachable")
    require_replay(night, submit(api, body))
