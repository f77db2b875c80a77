"""A retry is another job that goes on from what the first one has evaluated."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from jobs.artifacts import StoredFile
from jobs.attempts import AttemptStore, Claim
from jobs.errors import IllegalMoveError
from jobs.ledger import LedgerStore
from jobs.records import Evaluation, Round
from jobs.request import JobRequest
from jobs.states import JobState, Wish
from jobs.store import JobStore
from tests.devices import HOST

PRIOR, WEIGHTS = StoredFile("prior", 1, "0"), StoredFile("weights", 2, "1")


@pytest.fixture
def attempts(engine: Engine) -> AttemptStore:
    return AttemptStore(engine)


def claimed(attempts: AttemptStore) -> Claim:
    found = attempts.claim(worker="test", device=HOST, lease_seconds=60)
    assert found is not None
    return found


@pytest.fixture
def failed(
    engine: Engine, store: JobStore, attempts: AttemptStore, body: dict[str, Any]
) -> Callable[[], UUID]:
    """A job that failed after one whole round and three masks of the next."""

    def make() -> UUID:
        job_id = store.submit(JobRequest.model_validate({**body, "name": "night"})).id
        held = claimed(attempts)
        ledger = LedgerStore(engine, job_id, held.fencing_token)
        assert ledger.bind("inputs") == "inputs"
        for number in (1, 2):
            ledger.begin_round(number, PRIOR)
            for trial in range(3):
                ledger.record(number, trial, -trial / number, 0.1)
        ledger.finish_round(1, {"number": 1}, WEIGHTS)
        attempts.fail(held, {"code": "broken_numerics"})
        return job_id

    return make


def ledger_of(engine: Engine, job_id: UUID) -> list[tuple[Any, ...]]:
    """Every number of a job's ledger."""
    with Session(engine) as session:
        rounds = session.scalars(select(Round).where(Round.job_id == job_id).order_by(Round.number))
        masks = session.scalars(
            select(Evaluation)
            .where(Evaluation.job_id == job_id)
            .order_by(Evaluation.round, Evaluation.trial)
        )
        return [
            *((r.number, r.prior, r.record, r.weights, r.finished_at) for r in rounds),
            *((m.round, m.trial, m.utility, m.seconds, m.at) for m in masks),
        ]


def test_a_retry_has_the_request_and_the_ledger_of_the_first(
    engine: Engine, store: JobStore, attempts: AttemptStore, failed: Callable[[], UUID]
) -> None:
    first = store.show(failed())
    again = store.retry(first.id)
    assert again.id != first.id
    assert (again.retry_of, again.state) == (first.id, JobState.QUEUED)
    assert (again.name, again.request) == ("night", first.request)
    assert (again.error, again.attempts, again.crashes) == (None, 0, 0)
    assert len(ledger_of(engine, first.id)) == 8
    assert ledger_of(engine, again.id) == ledger_of(engine, first.id)
    held = claimed(attempts)
    assert held.job_id == again.id
    assert LedgerStore(engine, again.id, held.fencing_token).bind("inputs") == "inputs"
    assert len(ledger_of(engine, again.id)) == 8


def test_a_retry_changes_nothing_of_the_first_but_says_so(
    store: JobStore, failed: Callable[[], UUID]
) -> None:
    before = store.show(failed())
    again = store.retry(before.id)
    after = store.show(before.id)
    assert (after.state, after.finished_at, after.error) == (
        before.state,
        before.finished_at,
        before.error,
    )
    event = store.events(before.id, limit=100).items[-1]
    assert (event.type, event.data) == ("retried", {"job": str(again.id)})
    event = store.events(again.id, limit=100).items[0]
    assert (event.type, event.data) == ("submitted", {"retry_of": str(before.id)})


def test_a_second_retry_gives_the_same_job(store: JobStore, failed: Callable[[], UUID]) -> None:
    job_id = failed()
    assert store.retry(job_id).id == store.retry(job_id).id
    assert len(store.list(limit=10).items) == 2


def test_a_retry_of_changed_inputs_starts_anew(
    engine: Engine, store: JobStore, attempts: AttemptStore, failed: Callable[[], UUID]
) -> None:
    first = failed()
    again = store.retry(first)
    held = claimed(attempts)
    ledger = LedgerStore(engine, again.id, held.fencing_token)
    assert ledger.bind("other inputs") == "other inputs"
    assert ledger_of(engine, again.id) == []
    assert store.events(again.id, limit=100).items[-1].type == "started_anew"
    assert len(ledger_of(engine, first)) == 8


def test_what_a_retry_has_evaluated_itself_is_not_dropped(
    engine: Engine, store: JobStore, attempts: AttemptStore, failed: Callable[[], UUID]
) -> None:
    again = store.retry(failed())
    held = claimed(attempts)
    ledger = LedgerStore(engine, again.id, held.fencing_token)
    ledger.bind("inputs")
    ledger.record(2, 3, -9.0, 0.1)
    # The core refuses to go on when it hears this.
    assert ledger.bind("other inputs") == "inputs"
    assert len(ledger_of(engine, again.id)) == 9


@pytest.mark.parametrize("state", ["queued", "running", "pausing", "paused", "cancelling"])
def test_a_job_that_has_not_ended_is_not_retried(
    store: JobStore, attempts: AttemptStore, body: dict[str, Any], state: str
) -> None:
    job_id = store.submit(JobRequest.model_validate(body)).id
    if state in ("running", "pausing", "cancelling"):
        claimed(attempts)
    if state in ("pausing", "paused"):
        store.ask(job_id, Wish.PAUSE)
    if state == "cancelling":
        store.ask(job_id, Wish.CANCEL)
    assert store.show(job_id).state == state
    with pytest.raises(IllegalMoveError, match=f"is {state}: no retry now"):
        store.retry(job_id)


def test_a_cancelled_job_is_retried(store: JobStore, body: dict[str, Any]) -> None:
    job_id = store.submit(JobRequest.model_validate(body)).id
    store.ask(job_id, Wish.CANCEL)
    assert store.retry(job_id).retry_of == job_id
