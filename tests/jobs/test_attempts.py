"""Claims, leases and fencing: races with real connections, writes with old tokens."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from jobs.artifacts import StoredFile
from jobs.attempts import AttemptStore, Claim
from jobs.crashes import CrashLimits
from jobs.errors import LeaseLostError
from jobs.ledger import LedgerStore
from jobs.progress import Progress
from jobs.records import Artifact, Attempt, Evaluation, Job, Round
from jobs.request import JobRequest
from jobs.schedule import WaitingReason
from jobs.states import JobState, Wish
from jobs.store import JobStore
from tests.devices import HOST

AT_ONCE = CrashLimits(in_a_row=3, backoff_seconds=0)


@pytest.fixture
def attempts(engine: Engine) -> AttemptStore:
    return AttemptStore(engine)


@pytest.fixture
def submit(store: JobStore, body: dict[str, Any]) -> Callable[[], UUID]:
    return lambda: store.submit(JobRequest.model_validate(body)).id


def claim(attempts: AttemptStore, lease_seconds: float = 60) -> Claim | None:
    return attempts.claim(worker="test", device=HOST, lease_seconds=lease_seconds)


def claimed(attempts: AttemptStore, lease_seconds: float = 60) -> Claim:
    found = claim(attempts, lease_seconds)
    assert found is not None
    return found


def test_the_oldest_queued_job_is_claimed_first(
    attempts: AttemptStore, submit: Callable[[], UUID]
) -> None:
    expected = [submit() for _ in range(3)]
    assert [claimed(attempts).job_id for _ in range(3)] == expected
    assert claim(attempts) is None


def test_twenty_claimers_of_ten_jobs_get_each_job_once(
    attempts: AttemptStore, submit: Callable[[], UUID]
) -> None:
    jobs = {submit() for _ in range(10)}
    barrier = threading.Barrier(5)

    def race(_: int) -> list[Claim | None]:
        barrier.wait()
        return [claim(attempts) for _ in range(4)]

    with ThreadPoolExecutor(5) as pool:
        claims = [c for found in pool.map(race, range(5)) for c in found if c is not None]
    assert {c.job_id for c in claims} == jobs
    assert len(claims) == 10
    assert len({c.fencing_token for c in claims}) == 10


def test_tokens_only_grow(attempts: AttemptStore, submit: Callable[[], UUID]) -> None:
    submit()
    first = claimed(attempts)
    attempts.release(first, "test")
    second = claimed(attempts)
    assert second.fencing_token > first.fencing_token
    assert second.attempt == 2


def old_token_writes(engine: Engine, old: Claim) -> list[Callable[[], object]]:
    """Every write of an attempt."""
    attempts = AttemptStore(engine)
    ledger = LedgerStore(engine, old.job_id, old.fencing_token)
    file = StoredFile("key", 1, "0")
    artifact = Artifact(
        job_id=old.job_id, name="x", key="k", size_bytes=1, sha256="0", content_type="a/b"
    )
    return [
        lambda: attempts.renew(old, 60),
        lambda: attempts.report(old, "late", {}),
        lambda: attempts.succeed(old, {}, [artifact]),
        lambda: attempts.fail(old, {}),
        lambda: attempts.release(old, "late"),
        lambda: attempts.crashed(old, {}, AT_ONCE),
        lambda: attempts.hold(old, WaitingReason.DISK_FULL, 60),
        lambda: ledger.bind("late"),
        lambda: ledger.begin_round(2, file),
        lambda: ledger.finish_round(1, {"late": True}, None),
        lambda: ledger.record(1, 9, 1.0, 1.0),
        lambda: ledger.show_progress(Progress(round=99)),
    ]


def test_a_write_with_an_old_token_changes_nothing(
    engine: Engine, store: JobStore, attempts: AttemptStore, submit: Callable[[], UUID]
) -> None:
    job_id = submit()
    old = claimed(attempts, lease_seconds=0.01)
    LedgerStore(engine, job_id, old.fencing_token).begin_round(1, StoredFile("k", 1, "0"))
    time.sleep(0.05)
    assert attempts.expire() == [job_id]
    holder = claimed(attempts)
    before = store.show(job_id)
    for write in old_token_writes(engine, old):
        with pytest.raises(LeaseLostError):
            write()
    after = store.show(job_id)
    assert after.state == JobState.RUNNING
    assert after.fencing_token == holder.fencing_token
    assert (after.last_event, after.progress, after.fingerprint, after.lease_expires_at) == (
        before.last_event,
        before.progress,
        before.fingerprint,
        before.lease_expires_at,
    )
    with Session(engine) as session:
        assert session.scalars(select(Evaluation)).all() == []
        assert session.scalars(select(Artifact)).all() == []
        assert [r.record for r in session.scalars(select(Round))] == [None]


def test_a_renewed_lease_does_not_expire_and_a_silent_one_does(
    attempts: AttemptStore, submit: Callable[[], UUID]
) -> None:
    job_id = submit()
    held = claimed(attempts, lease_seconds=0.01)
    attempts.renew(held, 60)
    time.sleep(0.05)
    assert attempts.expire() == []
    attempts.renew(held, 0.01)
    time.sleep(0.05)
    assert attempts.expire() == [job_id]
    assert claimed(attempts).job_id == job_id


WITH_WORK_LEFT = [
    (None, JobState.QUEUED),
    (Wish.PAUSE, JobState.PAUSED),
    (Wish.CANCEL, JobState.CANCELLED),
]


@pytest.mark.parametrize(("wish", "state"), WITH_WORK_LEFT)
@pytest.mark.parametrize("reason", ["lease_expired", "crashed", "drained"])
def test_a_job_that_lost_its_worker_comes_to_where_it_was_wished(
    engine: Engine,
    store: JobStore,
    attempts: AttemptStore,
    submit: Callable[[], UUID],
    wish: Wish | None,
    state: JobState,
    reason: str,
) -> None:
    job_id = submit()
    held = claimed(attempts, lease_seconds=0.01 if reason == "lease_expired" else 60)
    if wish:
        store.ask(job_id, wish)
    if reason == "lease_expired":
        time.sleep(0.05)
        assert attempts.expire() == [job_id]
    elif reason == "crashed":
        assert attempts.crashed(held, {"exit_code": -9}, AT_ONCE) is state
    else:
        assert attempts.release(held, reason) is state
    job = store.show(job_id)
    assert (job.state, job.fencing_token, job.lease_expires_at) == (state, None, None)
    event = store.events(job_id, limit=100).items[-1]
    named = "released" if reason == "drained" else reason
    assert event.type == (named if state is JobState.QUEUED else state)
    assert (event.data["attempt"], event.data["reason"]) == (1, reason)
    with Session(engine) as session:
        assert session.scalars(select(Attempt.outcome)).all() == [reason]


@pytest.mark.parametrize("end", ["succeed", "fail", "crash"])
def test_cancel_wins_over_an_end_that_comes_after_it(
    store: JobStore, attempts: AttemptStore, submit: Callable[[], UUID], end: str
) -> None:
    job_id = submit()
    held = claimed(attempts)
    store.ask(job_id, Wish.CANCEL)
    file = Artifact(job_id=job_id, name="m", key="k", size_bytes=1, sha256="0", content_type="a/b")
    if end == "succeed":
        state = attempts.succeed(held, {"sparsity": 0.5}, [file])
    elif end == "fail":
        state = attempts.fail(held, {"code": "x"})
    else:
        state = attempts.crashed(held, {}, CrashLimits(in_a_row=1))
    job = store.show(job_id)
    assert state == job.state == JobState.CANCELLED
    assert (job.result, job.error) == (None, None)
    assert store.artifacts(job_id) == []


@pytest.mark.parametrize("end", [JobState.SUCCEEDED, JobState.FAILED])
def test_a_job_that_ends_while_it_is_pausing_has_ended(
    store: JobStore, attempts: AttemptStore, submit: Callable[[], UUID], end: JobState
) -> None:
    job_id = submit()
    held = claimed(attempts)
    store.ask(job_id, Wish.PAUSE)
    if end is JobState.SUCCEEDED:
        assert attempts.succeed(held, {"sparsity": 0.5}, []) is end
    else:
        assert attempts.fail(held, {"code": "x"}) is end
    assert store.show(job_id).state == end


def test_a_job_resumed_before_its_worker_let_go_is_queued_again(
    store: JobStore, attempts: AttemptStore, submit: Callable[[], UUID]
) -> None:
    job_id = submit()
    held = claimed(attempts)
    store.ask(job_id, Wish.PAUSE)
    assert attempts.renew(held, 60).state is JobState.PAUSING
    store.ask(job_id, Wish.RESUME)
    assert attempts.renew(held, 60).state is JobState.RUNNING
    assert attempts.release(held, "paused") is JobState.QUEUED
    assert claimed(attempts).attempt == 2


def test_a_paused_job_is_not_claimed(
    store: JobStore, attempts: AttemptStore, submit: Callable[[], UUID]
) -> None:
    first, second = submit(), submit()
    store.ask(first, Wish.PAUSE)
    assert claimed(attempts).job_id == second
    assert claim(attempts) is None
    store.ask(first, Wish.RESUME)
    assert claimed(attempts).job_id == first


def test_a_lost_worker_is_not_charged_to_the_job(
    store: JobStore, attempts: AttemptStore, submit: Callable[[], UUID]
) -> None:
    job_id = submit()
    for _ in range(5):
        claimed(attempts, lease_seconds=0.01)
        time.sleep(0.03)
        attempts.expire()
    job = store.show(job_id)
    assert (job.state, job.crashes, job.attempts) == (JobState.QUEUED, 0, 5)


def test_crashes_in_a_row_fail_the_job_and_a_new_mask_starts_the_count_again(
    engine: Engine, store: JobStore, attempts: AttemptStore, submit: Callable[[], UUID]
) -> None:
    job_id = submit()
    for _ in range(2):
        assert attempts.crashed(claimed(attempts), {}, AT_ONCE) is JobState.QUEUED
    held = claimed(attempts)
    ledger = LedgerStore(engine, job_id, held.fencing_token)
    ledger.begin_round(1, StoredFile("k", 1, "0"))
    ledger.record(1, 0, -1.0, 0.1)
    assert attempts.crashed(held, {}, AT_ONCE) is JobState.QUEUED
    assert store.show(job_id).crashes == 1
    assert attempts.crashed(claimed(attempts), {}, AT_ONCE) is JobState.QUEUED
    assert attempts.crashed(claimed(attempts), {"exit_code": -11}, AT_ONCE) is JobState.FAILED
    job = store.show(job_id)
    assert job.state == JobState.FAILED
    assert job.error is not None
    assert (job.error["code"], job.error["exit_code"]) == ("poisoned", -11)


def test_files_become_visible_with_success_and_only_then(
    store: JobStore, attempts: AttemptStore, submit: Callable[[], UUID]
) -> None:
    job_id = submit()
    held = claimed(attempts)
    assert store.artifacts(job_id) == []
    file = Artifact(job_id=job_id, name="m", key="k", size_bytes=1, sha256="0", content_type="a/b")
    attempts.succeed(held, {"sparsity": 0.5}, [file])
    assert [artifact.name for artifact in store.artifacts(job_id)] == ["m"]
    assert store.show(job_id).state == JobState.SUCCEEDED


def test_events_are_numbered_without_gaps_whoever_writes(
    engine: Engine, store: JobStore, attempts: AttemptStore, submit: Callable[[], UUID]
) -> None:
    job_id = submit()
    held = claimed(attempts)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: attempts.report(held, "tick", {"n": n}), range(40)))
    store.ask(job_id, Wish.CANCEL)
    attempts.release(held, "cancelled")
    numbers = [event.sequence for event in store.events(job_id, limit=1000).items]
    assert numbers == list(range(1, len(numbers) + 1))
    assert store.show(job_id).last_event == len(numbers)


def test_an_attempt_keeps_why_it_ended(
    engine: Engine, attempts: AttemptStore, submit: Callable[[], UUID]
) -> None:
    submit()
    attempts.release(claimed(attempts), "drained")
    attempts.fail(claimed(attempts), {"code": "x"})
    with Session(engine) as session:
        rows = session.scalars(select(Attempt).order_by(Attempt.number)).all()
    assert [(row.number, row.outcome) for row in rows] == [(1, "drained"), (2, "failed")]
    assert all(row.ended_at is not None for row in rows)


def test_a_mask_of_an_attempt_that_did_not_crash_starts_the_count_again_too(
    store: JobStore, attempts: AttemptStore, engine: Engine, submit: Callable[[], UUID]
) -> None:
    job_id = submit()
    for _ in range(2):
        assert attempts.crashed(claimed(attempts), {}, AT_ONCE) is JobState.QUEUED
    drained = claimed(attempts)
    ledger = LedgerStore(engine, job_id, drained.fencing_token)
    ledger.begin_round(1, StoredFile("k", 1, "0"))
    ledger.record(1, 0, -1.0, 0.1)
    attempts.release(drained, "drained")
    assert attempts.crashed(claimed(attempts), {}, AT_ONCE) is JobState.QUEUED
    assert store.show(job_id).crashes == 1


def test_a_job_waits_longer_after_each_crash(
    engine: Engine, store: JobStore, attempts: AttemptStore, submit: Callable[[], UUID]
) -> None:
    job_id = submit()
    for number in range(3):
        attempts.crashed(claimed(attempts), {}, CrashLimits(in_a_row=9, backoff_seconds=600))
        assert claim(attempts) is None
        job = store.show(job_id)
        assert store.places([job])[job_id].reason is WaitingReason.RETRY_BACKOFF
        assert job.held_until is not None
        wait = job.held_until - store.events(job_id, limit=100).items[-1].at
        assert wait.total_seconds() == pytest.approx(600 * 2**number, abs=5)
        with Session(engine) as session, session.begin():
            session.execute(update(Job).values(held_until=func.now()))


def test_a_job_without_room_is_held_and_not_charged(
    engine: Engine, store: JobStore, attempts: AttemptStore, submit: Callable[[], UUID]
) -> None:
    job_id = submit()
    for _ in range(5):
        held = claimed(attempts)
        assert attempts.hold(held, WaitingReason.DISK_FULL, 60) is JobState.QUEUED
        assert claim(attempts) is None
        job = store.show(job_id)
        assert store.places([job])[job_id].reason is WaitingReason.DISK_FULL
        with Session(engine) as session, session.begin():
            session.execute(update(Job).values(held_until=func.now()))
    assert (job.state, job.crashes, job.attempts) == (JobState.QUEUED, 0, 5)
    assert store.events(job_id, limit=100).items[-1].type == "disk_full"
