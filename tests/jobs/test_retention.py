"""What is kept of jobs that have ended, and how it goes."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from jobs.artifacts import LocalArtifactStore, files_prefix
from jobs.collector import Collector, Why
from jobs.errors import JobNotFoundError, QuotaExceededError
from jobs.fairness import Fairness
from jobs.ledger import LedgerStore
from jobs.log_lines import LogStore
from jobs.records import Attempt, Evaluation, Job, LogLine, Round
from jobs.request import JobRequest
from jobs.retention import Retention
from jobs.settings import Settings
from jobs.store import JobStore
from tests.fake_worker import FakeWorker

NOW = datetime.now(UTC)
WEEK = Retention(days=7, notice_hours=24)


@pytest.fixture
def files(settings: Settings) -> LocalArtifactStore:
    return LocalArtifactStore(settings.artifacts_dir)


@pytest.fixture
def ended(
    engine: Engine, store: JobStore, worker: FakeWorker, body: dict[str, Any], tmp_path: Path
) -> Callable[..., UUID]:
    """A job that ended some days ago, with a result of 10 bytes and a checkpoint of 7."""

    def make(days: float, owner: str = "team", *, failed: bool = False) -> UUID:
        job_id = store.submit(JobRequest.model_validate({**body, "owner": owner})).id
        claim = worker.claim()
        source = tmp_path / "prior"
        source.write_bytes(b"1234567")
        key = f"{files_prefix(job_id)}/prior"
        stored = LocalArtifactStore(tmp_path / "elsewhere").put(key, source)
        LedgerStore(engine, job_id, claim.fencing_token).begin_round(1, stored)
        worker.evaluate(claim, number=1, trials=2)
        LogStore(engine).keep(claim.fencing_token, {1: "said"})
        if failed:
            worker.fail(claim)
        else:
            worker.succeed(claim, {"model": b"0123456789"})
        change(engine, job_id, finished_at=NOW - timedelta(days=days))
        return job_id

    return make


def change(engine: Engine, job_id: UUID, **values: Any) -> None:
    with Session(engine) as session, session.begin():
        session.execute(update(Job).where(Job.id == job_id).values(**values))


def told(store: JobStore, job_id: UUID) -> list[str]:
    return [event.type for event in store.events(job_id, limit=100).items]


def stored(files: LocalArtifactStore, store: JobStore, job_id: UUID) -> bool:
    (artifact,) = store.artifacts(job_id)
    try:
        return files.size(artifact.key) == artifact.size_bytes
    except FileNotFoundError:
        return False


def test_by_default_nothing_expires(
    engine: Engine, files: LocalArtifactStore, ended: Callable[..., UUID]
) -> None:
    ended(10_000)
    assert Collector(engine, files, Retention()).collect() == []


def test_it_is_announced_and_then_goes_with_files_and_ledger(
    engine: Engine, files: LocalArtifactStore, store: JobStore, ended: Callable[..., UUID]
) -> None:
    old, young = ended(8), ended(6)
    collector = Collector(engine, files, WEEK)
    (found,) = collector.due()
    assert (found.job_id, found.why, found.size_bytes) == (old, Why.AGE, 17)
    assert (found.due_at, found.is_due) == (None, False)
    assert told(store, old)[-1] == "succeeded"
    collector.collect()
    assert told(store, old)[-1] == "expiry_announced"
    (found,) = collector.collect()
    assert not found.is_due
    assert found.due_at is not None
    assert timedelta(hours=23) < found.due_at - NOW < timedelta(hours=25)
    assert stored(files, store, old)
    change(engine, old, expires_at=NOW - timedelta(seconds=1))
    (found,) = collector.collect()
    assert found.is_due
    assert not stored(files, store, old)
    assert stored(files, store, young)
    assert told(store, old)[-2:] == ["expiry_announced", "expired"]
    assert store.show(old).expired_at is not None
    with Session(engine) as session:
        for table in (Round, Evaluation):
            owners = set(session.scalars(select(table.job_id)))
            assert owners == {young}
        said = select(Attempt.job_id).join(LogLine, LogLine.fencing_token == Attempt.fencing_token)
        assert session.scalars(said).all() == [young]
    assert collector.collect() == []


def test_of_each_owner_the_last_ones_are_kept(
    engine: Engine, files: LocalArtifactStore, ended: Callable[..., UUID]
) -> None:
    oldest, older = ended(5), ended(4)
    ended(3), ended(2), ended(9, "other")
    due = Collector(engine, files, Retention(per_owner=2)).due()
    assert [(found.job_id, found.why) for found in due] == [
        (oldest, Why.COUNT),
        (older, Why.COUNT),
    ]


def test_a_pinned_job_is_kept_and_gets_another_notice_when_unpinned(
    engine: Engine, files: LocalArtifactStore, store: JobStore, ended: Callable[..., UUID]
) -> None:
    old = ended(8)
    collector = Collector(engine, files, WEEK)
    collector.collect()
    change(engine, old, expires_at=NOW - timedelta(seconds=1))
    for _ in range(2):
        assert store.pin(old, pinned=True).pinned
    assert collector.collect() == []
    store.pin(old, pinned=False)
    assert told(store, old)[-2:] == ["pinned", "unpinned"]
    (found,) = collector.due()
    assert (found.due_at, found.is_due) == (None, False)


@pytest.mark.parametrize("asked", [[True], [True, False]], ids=["pinned", "unpinned_again"])
def test_one_that_was_pinned_in_between_stays_and_gets_another_notice_first(
    engine: Engine,
    files: LocalArtifactStore,
    store: JobStore,
    ended: Callable[..., UUID],
    monkeypatch: pytest.MonkeyPatch,
    asked: list[bool],
) -> None:
    old = ended(8)
    collector = Collector(engine, files, WEEK)
    collector.collect()
    change(engine, old, expires_at=NOW - timedelta(seconds=1))
    due = collector.due()
    monkeypatch.setattr(collector, "due", lambda: due)
    for pinned in asked:
        store.pin(old, pinned=pinned)
    collector.collect()
    assert stored(files, store, old)


def test_two_that_collect_at_once_announce_once(
    engine: Engine,
    files: LocalArtifactStore,
    store: JobStore,
    ended: Callable[..., UUID],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = ended(8)
    collector = Collector(engine, files, WEEK)
    due = collector.due()
    monkeypatch.setattr(collector, "due", lambda: due)
    for _ in range(2):
        collector.collect()
    assert told(store, old).count("expiry_announced") == 1


def test_files_that_a_retry_goes_on_from_are_kept_until_it_has_ended(
    engine: Engine,
    files: LocalArtifactStore,
    store: JobStore,
    ended: Callable[..., UUID],
    worker: FakeWorker,
) -> None:
    failed = ended(8, failed=True)
    store.retry(failed)
    collector = Collector(engine, files, WEEK)
    assert collector.due() == []
    worker.fail(worker.claim())
    assert [found.job_id for found in collector.due()] == [failed]


def test_what_was_interrupted_is_done_at_the_next_time(
    engine: Engine, files: LocalArtifactStore, store: JobStore, ended: Callable[..., UUID]
) -> None:
    old = ended(8)
    collector = Collector(engine, files, WEEK)
    collector.collect()
    change(engine, old, expires_at=NOW - timedelta(seconds=1))
    files.delete(files_prefix(old))  # killed right after it
    collector.collect()
    assert told(store, old)[-1] == "expired"


def test_a_job_that_is_not_there_cannot_be_pinned(store: JobStore) -> None:
    with pytest.raises(JobNotFoundError):
        store.pin(UUID(int=0), pinned=True)


def test_an_owner_whose_files_take_too_much_submits_no_more(
    engine: Engine, files: LocalArtifactStore, ended: Callable[..., UUID], body: dict[str, Any]
) -> None:
    old = ended(8)
    store = JobStore(engine, Fairness(disk_per_owner=17))
    with pytest.raises(QuotaExceededError, match="17 bytes, of at most 17"):
        store.submit(JobRequest.model_validate({**body, "owner": "team"}))
    store.submit(JobRequest.model_validate({**body, "owner": "other"}))
    collector = Collector(engine, files, Retention(days=7, notice_hours=0))
    collector.collect()
    collector.collect()
    assert store.show(old).expired_at is not None
    store.submit(JobRequest.model_validate({**body, "owner": "team"}))
