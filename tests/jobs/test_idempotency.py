"""Submissions that are made again with a key: races, refusals, and what is left of them."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, func, select, text, update
from sqlalchemy.orm import Session

from jobs.artifacts import LocalArtifactStore
from jobs.batch import BatchRequest
from jobs.collector import Collector
from jobs.errors import IdempotencyKeyReusedError, QuotaExceededError
from jobs.fairness import Fairness
from jobs.idempotency import FORGOTTEN_AFTER, submission_key, take
from jobs.records import Batch, IdempotencyKey, Job
from jobs.request import JobRequest
from jobs.retention import Retention
from jobs.store import JobStore

KEY = "nightly-2026-12-01"


@pytest.fixture
def request_(body: dict[str, Any]) -> JobRequest:
    return JobRequest.model_validate(body)


def submit(store: JobStore, request: JobRequest, key: str | None) -> tuple[Job, bool]:
    return store.submit_once(request, submission_key(key, request))


def count(engine: Engine, table: type[Any]) -> int:
    with Session(engine) as session:
        return session.scalars(select(func.count()).select_from(table)).one()


def wait_for_a_lock(engine: Engine, second: Future[Any]) -> None:
    """Until a statement waits for another transaction; not when `second` has not had to."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    # Within one transaction, what was seen first would be seen again.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.scalar(waiting):
            assert not second.done(), "it did not wait"
            time.sleep(0.01)


def test_the_same_request_with_the_same_key_gives_the_same_job(
    engine: Engine, store: JobStore, body: dict[str, Any]
) -> None:
    backwards = dict(reversed(body.items()))
    made = [submit(store, JobRequest.model_validate(said), KEY) for said in (body, body, backwards)]
    assert [replayed for _, replayed in made] == [False, True, True]
    assert len({job.id for job, _ in made}) == count(engine, Job) == 1
    assert [event.type for event in store.events(made[0][0].id, limit=10).items] == ["submitted"]


def test_another_request_with_the_same_key_is_refused_and_told_whose_it_is(
    engine: Engine, store: JobStore, request_: JobRequest
) -> None:
    job, _ = submit(store, request_, KEY)
    other = request_.model_copy(update={"name": "other"})
    key = submission_key(KEY, other)
    for ask in (lambda: store.submit_once(other, key), lambda: store.has_submitted(key)):
        with pytest.raises(IdempotencyKeyReusedError, match=str(job.id)) as refusal:
            ask()
        assert refusal.value.value == KEY
    assert count(engine, Job) == 1


def test_without_a_key_or_with_another_one_there_is_another_job(
    engine: Engine, store: JobStore, request_: JobRequest
) -> None:
    for key in (None, None, KEY, f"{KEY}-again"):
        assert not store.has_submitted(submission_key(key, request_))
        assert not submit(store, request_, key)[1]
    assert count(engine, Job) == 4


def test_a_key_makes_one_job_and_one_batch(
    engine: Engine, store: JobStore, request_: JobRequest, body: dict[str, Any]
) -> None:
    batch = BatchRequest.model_validate({"jobs": [body, body]})
    submit(store, request_, KEY)
    before = count(engine, Batch)
    made = [store.submit_batch_once(batch, submission_key(KEY, batch)) for _ in range(2)]
    assert [replayed for _, replayed in made] == [False, True]
    assert len({row.id for row, _ in made}) == count(engine, Batch) - before == 1
    assert count(engine, Job) == 3


def test_fifty_at_once_with_one_key_make_one_job(
    engine: Engine, store: JobStore, request_: JobRequest
) -> None:
    barrier = threading.Barrier(50)

    def one_of_them(_: int) -> tuple[UUID, bool]:
        barrier.wait()
        job, replayed = submit(store, request_, KEY)
        return job.id, replayed

    with ThreadPoolExecutor(50) as pool:
        made = list(pool.map(one_of_them, range(50)))
    assert len({job_id for job_id, _ in made}) == count(engine, Job) == 1
    assert [replayed for _, replayed in made].count(False) == 1


@pytest.mark.parametrize("commits", [True, False])
def test_who_comes_second_waits_for_what_becomes_of_the_first(
    engine: Engine, store: JobStore, request_: JobRequest, commits: bool
) -> None:
    made_id = uuid4()
    with ThreadPoolExecutor(1) as pool, Session(engine) as first:
        take(first, "default", submission_key(KEY, request_), made_id)
        second = pool.submit(submit, store, request_, KEY)
        wait_for_a_lock(engine, second)
        if commits:
            first.add(Job(id=made_id, labels={}, request={}))
            first.commit()
        else:
            first.rollback()
        job, replayed = second.result()
    assert replayed is (job.id == made_id) is commits
    assert count(engine, Job) == count(engine, IdempotencyKey) == 1


def test_a_submission_that_is_refused_leaves_no_key(
    engine: Engine, store: JobStore, request_: JobRequest
) -> None:
    full = JobStore(engine, Fairness(queued_per_owner=1))
    first, _ = submit(full, request_, KEY)
    with pytest.raises(QuotaExceededError):
        submit(full, request_, "another")
    assert count(engine, IdempotencyKey) == 1
    # What was queued before stays so, however full the queue is.
    assert submit(full, request_, KEY)[0].id == first.id
    assert submit(store, request_, "another")[0].id != first.id


def test_keys_are_forgotten_after_a_week(
    engine: Engine, store: JobStore, request_: JobRequest, tmp_path: Path
) -> None:
    collector = Collector(engine, LocalArtifactStore(tmp_path), Retention())
    jobs = {}
    for key, age in (("old", FORGOTTEN_AFTER), ("young", FORGOTTEN_AFTER - timedelta(hours=1))):
        jobs[key] = submit(store, request_, key)[0].id
        with Session(engine) as session, session.begin():
            session.execute(
                update(IdempotencyKey)
                .where(IdempotencyKey.key == key)
                .values(created_at=func.now() - age)
            )
    assert collector.collect() == []
    assert submit(store, request_, "young")[0].id == jobs["young"]
    assert submit(store, request_, "old")[0].id != jobs["old"]
