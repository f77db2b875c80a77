"""Workers come, are heard of, and go."""

import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, func, update
from sqlalchemy.orm import Session

from jobs.attempts import AttemptStore
from jobs.errors import WorkerNotFoundError
from jobs.records import Worker
from jobs.request import JobRequest
from jobs.store import JobStore
from jobs.workers import FORGOTTEN_AFTER, Presence, WorkerStore
from tests.devices import HOST


@pytest.fixture
def workers(engine: Engine) -> WorkerStore:
    return WorkerStore(engine)


def presences(workers: WorkerStore) -> dict[str, Presence]:
    return {account.worker.name: account.presence for account in workers.list()}


def test_a_worker_is_idle_or_busy_with_a_job(
    workers: WorkerStore, engine: Engine, body: dict[str, Any]
) -> None:
    workers.arrive("one", HOST, 60)
    workers.arrive("two", HOST, 60)
    job_id = JobStore(engine).submit(JobRequest.model_validate(body)).id
    AttemptStore(engine).claim(worker="two", device=HOST, lease_seconds=60)
    found = [(a.worker.name, a.worker.device, a.presence, a.job_id) for a in workers.list()]
    assert found == [
        ("one", "cpu", Presence.IDLE, None),
        ("two", "cpu", Presence.BUSY, job_id),
    ]
    workers.leave("one")
    assert presences(workers) == {"two": Presence.BUSY}


def test_a_worker_whose_device_has_failed_says_so_until_it_works(workers: WorkerStore) -> None:
    workers.arrive("one", replace(HOST, failed=True), 60)
    assert presences(workers) == {"one": Presence.DEVICE_FAILED}
    workers.beat("one", HOST, 60)
    assert presences(workers) == {"one": Presence.IDLE}


def test_a_silent_worker_is_lost_until_it_is_heard_of(workers: WorkerStore) -> None:
    workers.arrive("one", HOST, 0.01)
    time.sleep(0.05)
    assert presences(workers) == {"one": Presence.LOST}
    assert not workers.beat("one", HOST, 60)
    assert presences(workers) == {"one": Presence.IDLE}


def test_a_worker_hears_at_its_next_beat_that_it_is_to_leave(workers: WorkerStore) -> None:
    workers.arrive("one", HOST, 60)
    assert workers.drain("one").presence is Presence.DRAINING
    assert workers.drain("one").presence is Presence.DRAINING
    assert workers.beat("one", HOST, 60)
    # Started again, it stays.
    workers.arrive("one", HOST, 60)
    assert not workers.beat("one", HOST, 60)


def test_a_worker_that_is_not_there_cannot_leave(workers: WorkerStore) -> None:
    with pytest.raises(WorkerNotFoundError, match="'nobody'"):
        workers.drain("nobody")


def test_those_lost_long_ago_are_forgotten(workers: WorkerStore, engine: Engine) -> None:
    for name in ("old", "late"):
        workers.arrive(name, HOST, 60)
    with Session(engine) as session, session.begin():
        long_ago = func.now() - FORGOTTEN_AFTER - timedelta(seconds=1)
        session.execute(update(Worker).where(Worker.name == "old").values(lost_at=long_ago))
    workers.arrive("new", HOST, 60)
    assert set(presences(workers)) == {"late", "new"}


def test_one_that_was_forgotten_is_listed_again_when_it_is_heard_of(workers: WorkerStore) -> None:
    workers.arrive("one", HOST, 60)
    workers.leave("one")
    assert not workers.beat("one", HOST, 60)
    assert presences(workers) == {"one": Presence.IDLE}
