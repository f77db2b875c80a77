"""A job is claimed only where it fits, and says so where it fits nowhere."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError
from sqlalchemy import Engine

from jobs.attempts import AttemptStore
from jobs.devices import Device, DeviceKind, DeviceNeeds
from jobs.request import JobRequest
from jobs.schedule import WaitingReason
from jobs.states import Wish
from jobs.store import JobStore
from jobs.workers import WorkerStore
from tests.devices import GIB, HOST, gpu

Submit = Callable[..., UUID]
Claims = Callable[[Device], UUID | None]
UNKNOWN = Device(DeviceKind.CUDA, "cuda")


@pytest.fixture
def workers(engine: Engine) -> WorkerStore:
    return WorkerStore(engine)


@pytest.fixture
def submit(store: JobStore, body: dict[str, Any]) -> Submit:
    def make(whole: int | None = None, streamed: int | None = None, **needs: Any) -> UUID:
        needs["memory_bytes"] = whole and whole * GIB
        needs["streamed_memory_bytes"] = streamed and streamed * GIB
        return store.submit(JobRequest.model_validate({**body, "device": needs})).id

    return make


@pytest.fixture
def claims(engine: Engine) -> Claims:
    def claim(device: Device) -> UUID | None:
        found = AttemptStore(engine).claim(worker="test", device=device, lease_seconds=60)
        return found and found.job_id

    return claim


@pytest.fixture
def reason(store: JobStore) -> Callable[[UUID], WaitingReason | None]:
    return lambda job: store.places([store.show(job)])[job].reason


def test_a_job_waits_for_room_and_a_smaller_one_behind_it_goes_first(
    submit: Submit, claims: Claims
) -> None:
    large, small = submit(40), submit(10)
    assert claims(gpu(80, free=20)) == small
    assert claims(gpu(80, free=20)) is None
    assert claims(gpu(80, free=40)) == large


def test_a_job_whose_needs_or_device_are_not_known_is_taken(submit: Submit, claims: Claims) -> None:
    modest, large = submit(), submit(400)
    assert claims(gpu(1)) == modest
    assert claims(UNKNOWN) == large


def test_a_job_may_ask_for_a_kind_of_device(submit: Submit, claims: Claims) -> None:
    job = submit(kind="cuda")
    assert claims(HOST) is None
    assert claims(gpu(24)) == job


def test_a_model_too_large_for_every_device_goes_where_its_layers_fit(
    submit: Submit, claims: Claims, workers: WorkerStore
) -> None:
    workers.arrive("small", gpu(24), 60)
    job = submit(160, streamed=16)
    assert claims(HOST) is None
    assert claims(gpu(24, free=12)) is None
    assert claims(gpu(24)) == job


def test_a_model_waits_for_a_device_that_holds_it_whole(
    submit: Submit, claims: Claims, workers: WorkerStore
) -> None:
    workers.arrive("large", gpu(80, free=10), 60)
    job = submit(40, streamed=16)
    assert claims(gpu(24)) is None
    workers.drain("large")
    assert claims(gpu(24)) == job


def test_a_job_that_fits_nowhere_says_so_until_there_is_a_device(
    submit: Submit, workers: WorkerStore, reason: Callable[[UUID], WaitingReason | None]
) -> None:
    job, picky, modest = submit(40, streamed=16), submit(1, kind="cuda"), submit(1)
    assert [reason(one) for one in (job, picky, modest)] == [None, None, None]  # no worker yet
    workers.arrive("host", HOST, 60)
    unfit = WaitingReason.NO_FITTING_DEVICE
    assert [reason(one) for one in (job, picky, modest)] == [unfit, unfit, None]
    workers.arrive("shared", gpu(80, free=8), 60)
    assert [reason(one) for one in (job, picky, modest)] == [unfit, None, None]
    workers.beat("shared", gpu(80), 60)
    assert [reason(one) for one in (job, picky, modest)] == [None, None, None]
    workers.drain("shared")
    assert reason(job) is unfit


def test_a_device_that_has_failed_has_room_for_nothing(
    submit: Submit,
    claims: Claims,
    workers: WorkerStore,
    reason: Callable[[UUID], WaitingReason | None],
) -> None:
    job = submit(160, streamed=16)
    workers.arrive("large", replace(gpu(192), failed=True), 60)
    assert reason(job) is WaitingReason.NO_FITTING_DEVICE
    # The other one need not wait for it either.
    assert claims(gpu(24)) == job


def test_a_worker_whose_device_is_not_known_may_take_anything(
    submit: Submit, workers: WorkerStore, reason: Callable[[UUID], WaitingReason | None]
) -> None:
    job = submit(400)
    workers.arrive("one", UNKNOWN, 60)
    assert reason(job) is None


def test_a_retry_needs_what_the_job_needed(store: JobStore, submit: Submit, claims: Claims) -> None:
    job = submit(40)
    store.ask(job, Wish.CANCEL)
    again = store.retry(job).id
    assert claims(gpu(24)) is None
    assert claims(gpu(80)) == again


def test_less_for_the_layers_than_for_the_whole() -> None:
    with pytest.raises(ValidationError, match="must not be more than memory_bytes"):
        DeviceNeeds(memory_bytes=GIB, streamed_memory_bytes=2 * GIB)
