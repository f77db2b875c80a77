"""Processes that die, hang, stop and come back, at any time."""

import os
import re
import signal
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis

from jobs.log_lines import LogStore
from jobs.schedule import WaitingReason
from jobs.states import JobState, Wish
from jobs.workers import Presence, WorkerStore
from tests.faults.conftest import Night
from tests.faults.engine import MASKS, ROUNDS
from tests.worker.conftest import children_of


def stop(process_id: int) -> None:
    """As if the machine were frozen: worker and child, each in a session of its own."""
    for found in (*children_of(process_id), process_id):
        os.kill(found, signal.SIGSTOP)


def go_on(process_id: int) -> None:
    for found in (process_id, *children_of(process_id)):
        with suppress(ProcessLookupError):  # a child that has heard of its loss has ended itself
            os.kill(found, signal.SIGCONT)


def outcomes(night: Night, job_id: object) -> list[str | None]:
    return [account.attempt.outcome for account in night.service.store.attempts(job_id)]


@pytest.mark.parametrize("masks", [1, 20, 31])
def test_f1_a_child_is_killed(night: Night, masks: int) -> None:
    worker = night.start_worker()
    job_id, other = night.submit(), night.submit()
    night.service.wait_evaluated(job_id, masks)
    (child,) = children_of(worker.pid)
    os.kill(child, signal.SIGKILL)
    night.succeed()
    assert outcomes(night, job_id) == ["crashed", "succeeded"]
    assert outcomes(night, other) == ["succeeded"]


@pytest.mark.parametrize("masks", [1, 25])
def test_f2_a_worker_is_killed_with_its_child(night: Night, masks: int) -> None:
    worker = night.start_worker()
    job_id = night.submit()
    night.service.wait_evaluated(job_id, masks)
    (child,) = children_of(worker.pid)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    night.start_worker()
    night.succeed()
    assert not Path(f"/proc/{child}").exists()
    assert outcomes(night, job_id) == ["lease_expired", "succeeded"]
    assert night.service.store.show(job_id).crashes == 0


@pytest.mark.parametrize("what", ["worker", "both"])
def test_f3_a_frozen_worker_comes_back_and_changes_nothing(night: Night, what: str) -> None:
    first = night.start_worker()
    job_id = night.submit()
    night.service.wait_evaluated(job_id, 5)
    stop(first.pid) if what == "both" else os.kill(first.pid, signal.SIGSTOP)
    night.start_worker()
    night.service.wait(job_id, lambda job: job.attempts == 2)
    go_on(first.pid)
    night.succeed()
    assert outcomes(night, job_id) == ["lease_expired", "succeeded"]
    while children_of(first.pid):
        time.sleep(0.01)
    # It is none the worse for it, and takes the next job if it is the first to hear of it.
    night.submit()
    night.succeed()


def test_f4_every_process_is_restarted_in_turn(night: Night) -> None:
    workers = [night.start_worker() for _ in range(2)]
    jobs = [night.submit() for _ in range(3)]
    for worker in workers:
        night.service.wait_evaluated(jobs[0], 3)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
        night.start_worker()
    night.succeed()
    for job_id in jobs:
        assert set(outcomes(night, job_id)) <= {"drained", "succeeded"}


def test_f6_the_broker_forgets_everything(night: Night) -> None:
    night.start_worker()
    running, waiting = night.submit(), night.submit()
    night.service.wait_evaluated(running, 3)
    redis.Redis.from_url(night.service.settings.redis_url).flushdb()
    night.succeed()
    assert outcomes(night, running) == outcomes(night, waiting) == ["succeeded"]


def test_f10_a_bell_rings_a_thousand_times(night: Night) -> None:
    job_id = night.submit()
    for _ in range(1000):
        night.service.doorbell.ring(job_id)
    for _ in range(2):
        night.start_worker()
    night.succeed()
    assert outcomes(night, job_id) == ["succeeded"]


def test_f15_there_is_no_room_on_the_disk(night: Night) -> None:
    full = night.start_worker(largest_file=100_000, hold_seconds="0.3", log_level="error")
    job_id = night.submit()
    night.service.wait(job_id, lambda job: job.attempts >= 3)
    full.send_signal(signal.SIGTERM)
    full.wait(30)
    night.start_worker()
    night.succeed()
    assert set(outcomes(night, job_id)) <= {"disk_full", "drained", "succeeded"}
    assert night.service.store.show(job_id).crashes == 0


def test_f16_there_is_no_room_for_the_result(night: Night) -> None:
    full = night.start_worker(largest_file=300_000, hold_seconds="0.3", log_level="error")
    job_id = night.submit(bytes="400000")
    night.service.wait(job_id, lambda job: job.attempts >= 3)
    full.send_signal(signal.SIGTERM)
    full.wait(30)
    assert night.service.evaluated(job_id) == ROUNDS * MASKS
    night.start_worker()
    # All that was evaluated is kept: the check at the end finds that no mask was measured again.
    night.succeed()
    assert set(outcomes(night, job_id)) <= {"disk_full", "drained", "succeeded"}


WRONG_CLOCK = """
import datetime, time
right, shift = time.time, {shift}
time.time = lambda: right() + shift
class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(seconds=shift)
datetime.datetime = Shifted
"""


@pytest.mark.parametrize("shift", [-3600, 3600])
def test_f18_the_clock_of_a_worker_is_wrong(
    night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(WRONG_CLOCK.format(shift=shift))
    with monkeypatch.context() as wrong:
        wrong.setenv("PYTHONPATH", str(tmp_path))
        worker = night.start_worker()
    right = datetime.now(UTC)
    first, late = night.submit(), night.submit()
    night.service.change(late, not_before=right + timedelta(seconds=4))
    night.service.wait_evaluated(first, 5)
    os.kill(children_of(worker.pid)[0], signal.SIGKILL)
    night.succeed()
    assert outcomes(night, first) == ["crashed", "succeeded"]
    for job_id in (first, late):
        job = night.service.store.show(job_id)
        assert job.finished_at is not None
        assert right < job.finished_at < datetime.now(UTC)
    (attempt,) = night.service.store.attempts(late)
    assert attempt.attempt.started_at >= right + timedelta(seconds=4)
    # The worker did believe its clock.
    told = re.findall(r'"timestamp": "([^"]+)"', night.service.log.read_text())
    wrong_by = {round((datetime.fromisoformat(at) - right).total_seconds() / 3600) for at in told}
    assert shift // 3600 in wrong_by


def test_f19_a_child_hangs(night: Night) -> None:
    worker = night.start_worker(stall_seconds="0.5")
    job_id = night.submit(hang="2.7")
    night.succeed()
    assert outcomes(night, job_id) == ["stalled", "succeeded"]
    event = next(
        event
        for event in night.service.store.events(job_id, limit=100).items
        if event.type == "stalled"
    )
    assert "in _hang" in event.data["log_tail"]
    # Whoever asks for its log finds the same.
    said = LogStore(night.service.engine).page(job_id, 1, limit=1000).items
    assert any("in _hang" in line.text for line in said)
    assert children_of(worker.pid) == []


def test_f19_a_child_hangs_again_and_again(night: Night) -> None:
    night.start_worker(stall_seconds="0.5")
    job_id, other = night.submit(hang="1.0", times="9"), night.submit()
    job = night.service.wait_final(job_id)
    assert job.error is not None
    assert (job.state, job.error["code"], job.attempts) == (JobState.FAILED, "stalled", 3)
    assert "in _hang" in job.error["log_tail"]
    assert night.service.wait_final(other).state == JobState.SUCCEEDED


def test_f20_a_child_ignores_the_wish_to_stop(night: Night) -> None:
    worker = night.start_worker(stop_grace_seconds="0.3")
    job_id = night.submit(stubborn="yes", hang="3.1")
    night.service.wait_evaluated(job_id, 41)
    (child,) = children_of(worker.pid)
    night.service.store.ask(job_id, Wish.PAUSE)
    night.service.wait(job_id, lambda job: job.state == JobState.PAUSED)
    assert not Path(f"/proc/{child}").exists()
    night.service.store.ask(job_id, Wish.RESUME)
    night.succeed()


def test_f25_a_poisoned_job_fails_and_the_queue_goes_on(night: Night) -> None:
    night.start_worker()
    poisoned, healthy = night.submit(crash="1.0", times="9"), night.submit()
    job = night.service.wait_final(poisoned)
    assert job.error is not None
    assert (job.state, job.error["code"], job.attempts) == (JobState.FAILED, "poisoned", 3)
    assert night.service.wait_final(healthy).state == JobState.SUCCEEDED


def test_f30_a_job_is_cancelled_while_its_worker_is_frozen(night: Night) -> None:
    frozen = night.start_worker()
    job_id = night.submit()
    night.service.wait_evaluated(job_id, 5)
    stop(frozen.pid)
    assert night.service.store.ask(job_id, Wish.CANCEL).state == JobState.CANCELLING
    night.start_worker()
    assert night.service.wait_final(job_id).state == JobState.CANCELLED
    done = night.service.evaluated(job_id)
    go_on(frozen.pid)
    while children_of(frozen.pid):
        time.sleep(0.01)
    assert night.service.evaluated(job_id) == done
    assert night.service.store.artifacts(job_id) == []


def test_f22_a_device_that_fails_is_left_alone_and_costs_the_job_nothing(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A worker that was promised a GPU, on a machine where none answers.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    night.start_worker(device="cuda", worker_name="broken")
    job_id = night.submit(crash="1.5")
    night.service.wait_attempt_end(job_id, 1)
    other = night.submit()
    while presences(night) != [Presence.DEVICE_FAILED]:
        time.sleep(0.05)
    place = night.service.store.places([night.service.store.show(other)])[other]
    assert place.reason is WaitingReason.NO_FITTING_DEVICE
    night.start_worker(worker_name="sound")
    night.succeed()
    assert outcomes(night, job_id) == ["device_failed", "succeeded"]
    assert outcomes(night, other) == ["succeeded"]
    assert night.service.store.show(job_id).crashes == 0


def presences(night: Night) -> list[Presence]:
    return [account.presence for account in WorkerStore(night.service.engine).list()]


def test_a_worker_that_is_drained_gives_its_job_back_and_leaves(night: Night) -> None:
    workers = WorkerStore(night.service.engine)
    worker = night.start_worker(worker_name="leaver")
    job_id = night.submit()
    night.service.wait_evaluated(job_id, 5)
    assert presences(night) == [Presence.BUSY]
    workers.drain("leaver")
    assert worker.wait(20) == 0
    assert presences(night) == []
    assert outcomes(night, job_id) == ["drained"]
    night.start_worker()
    night.succeed()
    assert night.service.store.show(job_id).crashes == 0


def test_a_worker_that_was_killed_is_listed_as_lost(night: Night) -> None:
    worker = night.start_worker()
    while not presences(night):
        time.sleep(0.01)
    worker.kill()
    worker.wait()
    while presences(night) != [Presence.LOST]:
        time.sleep(0.1)
