"""F40: many jobs, several workers, faults at random; in the morning nothing is lost or doubled.

`make soak` lets it go on for minutes or hours (`SOAK_SECONDS`), from a seed of its own or a given
one (`SOAK_SEED`); in the suite it is short, from a seed that stays. What the machine does meanwhile
is not in the seed, so a seed gives the same wishes and faults, not the same night.
"""

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest
import redis

from jobs.crashes import Crash
from jobs.errors import IllegalMoveError
from jobs.records import Job
from jobs.settings import Settings
from jobs.states import JobState, Wish
from tests.faults.conftest import Night, broker_through, through
from tests.faults.proxy import Proxy
from tests.worker.conftest import children_of

SECONDS = float(os.environ.get("SOAK_SECONDS", "20"))
SEED = int(os.environ.get("SOAK_SEED", "0"))
WORKERS, WAITING = 3, 4
LEASE_SECONDS = 2.0
ENOUGH_CRASHES = 3


class Soak:
    """Wishes and faults, one after the other, and what they were."""

    def __init__(
        self, night: Night, database: Proxy, broker: Proxy, settings: Settings, seed: int
    ) -> None:
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.wished: dict[UUID, Wish] = {}
        self._night, self._database, self._broker = night, database, broker
        self._redis = redis.Redis.from_url(settings.redis_url)
        self._urls = {
            "database_url": through(database, settings),
            "redis_url": broker_through(broker, settings),
        }
        self._frozen: list[int] = []
        self._faults: list[Callable[[], None]] = [
            self._kill_child,
            self._kill_worker,
            self._stop_worker,
            self._freeze,
            self._cut_database,
            self._cut_broker,
            self._forget_bells,
            self._wish,
            self._wish,
            self._wish,
        ]

    def go_on(self, seconds: float) -> None:
        """Jobs and workers enough, and something that goes wrong, until the time is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._refill()
            time.sleep(self.random.uniform(0.1, 0.8))
            fault = self.random.choice(self._faults)
            fault()
            self.counts[fault.__name__.strip("_")] += 1

    def come_to_an_end(self) -> None:
        """Nothing goes wrong any more, and nobody is held back."""
        self._thaw()
        self._database.mend()
        self._broker.mend()
        for job_id in self._night.jobs:
            # One that is being paused is resumed when it has let go.
            state = self._job(job_id).state
            while state in (JobState.PAUSING, JobState.PAUSED):
                with suppress(IllegalMoveError):
                    self._night.service.store.ask(job_id, Wish.RESUME)
                time.sleep(0.05)
                state = self._job(job_id).state
        while any(self._job(job_id).finished_at is None for job_id in self._night.jobs):
            self._start_workers()
            time.sleep(0.2)

    def _job(self, job_id: UUID) -> Job:
        return self._night.service.store.show(job_id)

    def _refill(self) -> None:
        self._start_workers()
        unfinished = sum(self._job(found).finished_at is None for found in self._night.jobs[-60:])
        while unfinished < WORKERS + WAITING:
            self._night.submit(**self._labels())
            unfinished += 1

    def _labels(self) -> dict[str, str]:
        """Most jobs behave; some crash or hang once, and a few always."""
        place = f"{self.random.randint(1, 3)}.{self.random.randint(0, 19)}"
        fault, times, *more = self.random.choices(
            [("", ""), ("crash", "1"), ("hang", "1"), ("crash", "9"), ("hang", "1", "stubborn")],
            [70, 12, 8, 4, 6],
        )[0]
        return {fault: place, "times": times} | dict.fromkeys(more, "yes") if fault else {}

    def _workers(self) -> list[subprocess.Popen[bytes]]:
        return [worker for worker in self._night.service.workers if worker.poll() is None]

    def _start_workers(self) -> None:
        for _ in range(WORKERS - len(self._workers())):
            self._night.start_worker(
                lease_seconds=str(LEASE_SECONDS),
                stall_seconds="1",
                stop_grace_seconds="1",
                **self._urls,
            )

    def _worker(self) -> subprocess.Popen[bytes]:
        return self.random.choice(self._workers())

    def _kill_child(self) -> None:
        for child in children_of(self._worker().pid):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def _kill_worker(self) -> None:
        self._worker().kill()

    def _stop_worker(self) -> None:
        self._worker().send_signal(signal.SIGTERM)

    def _freeze(self) -> None:
        """Longer than a lease or shorter; what was frozen before goes on."""
        self._thaw()
        worker = self._worker()
        self._frozen = [*children_of(worker.pid), worker.pid]
        for found in self._frozen:
            with suppress(ProcessLookupError):
                os.kill(found, signal.SIGSTOP)

    def _thaw(self) -> None:
        for found in self._frozen:
            with suppress(ProcessLookupError):
                os.kill(found, signal.SIGCONT)
        self._frozen = []

    def _cut_database(self) -> None:
        self._cut(self._database, self.random.choice([0.2, 1, 2 * LEASE_SECONDS]))

    def _cut_broker(self) -> None:
        self._cut(self._broker, self.random.choice([0.2, 2]))

    def _cut(self, proxy: Proxy, seconds: float) -> None:
        if self.random.random() < 0.5:
            proxy.silent = True
        else:
            proxy.cut()
        time.sleep(seconds)
        proxy.cut()
        proxy.mend()

    def _forget_bells(self) -> None:
        self._redis.flushdb()

    def _wish(self) -> None:
        """Pause, resume or cancel; where that is not legal, nothing happens."""
        job_id = self.random.choice(self._night.jobs[-20:])
        wish = self.random.choices([Wish.PAUSE, Wish.RESUME, Wish.CANCEL], [5, 5, 1])[0]
        with suppress(IllegalMoveError):
            self._night.service.store.ask(job_id, wish)
            self.wished[job_id] = wish


def ended_for_a_reason(night: Night, soak: Soak, job_id: UUID) -> bool:
    """Success, or a cancel that was wished, or crashes enough with no mask between them."""
    job = night.service.store.show(job_id)
    if job.state == JobState.FAILED:
        attempts = night.service.store.attempts(job_id)
        ends = {*map(str, Crash), "failed"}
        first, *others = [found for found in attempts if found.attempt.outcome in ends][
            -ENOUGH_CRASHES:
        ]
        since = [found for found in attempts if found.attempt.number > first.attempt.number]
        return len(others) == ENOUGH_CRASHES - 1 and not any(
            a.attempt.masks_evaluated for a in since
        )
    if job.state == JobState.CANCELLED:
        return soak.wished[job_id] is Wish.CANCEL
    return job.state == JobState.SUCCEEDED


@pytest.mark.timeout(SECONDS * 3 + 600)
def test_f40_a_night(
    night: Night, database: Proxy, broker: Proxy, settings: Settings, record: Path | None
) -> None:
    print(f"SOAK_SEED={SEED} SOAK_SECONDS={SECONDS:g}")  # noqa: T201 - to run it once more
    soak = Soak(night, database, broker, settings, SEED)
    soak.go_on(SECONDS)
    soak.come_to_an_end()
    night.check()
    assert [job_id for job_id in night.jobs if not ended_for_a_reason(night, soak, job_id)] == []
    accounts = [a for job_id in night.jobs for a in night.service.store.attempts(job_id)]
    told = {
        "seed": SEED,
        "seconds": SECONDS,
        "jobs": Counter(str(night.service.store.show(job_id).state) for job_id in night.jobs),
        "attempts": Counter(str(account.attempt.outcome) for account in accounts),
        "faults_and_wishes": soak.counts,
    }
    print(json.dumps(told, indent=2))  # noqa: T201
    if record is not None:
        record.write_text(json.dumps(told, indent=2) + "\n")


@pytest.fixture
def record() -> Path | None:
    """Where the outcome goes, if it is to be kept."""
    path = os.environ.get("SOAK_RECORD")
    return Path(path) if path else None
