"""What the core tells becomes the job's progress."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from bonsai_core import events
from jobs.attempts import AttemptStore, Claim
from jobs.ledger import LedgerStore
from jobs.patience import Patience
from jobs.progress import Progress, Stage, TimeBasis
from jobs.request import JobRequest
from jobs.states import JobState, Wish
from jobs.store import JobStore
from tests.fake_worker import FakeWorker
from worker.pulse import Pulse
from worker.reporter import Reporter


class Attempt:
    """One attempt's reporter, and the row that it writes."""

    def __init__(self, engine: Engine, claim: Claim, folder: Path) -> None:
        self._store = JobStore(engine)
        self._job_id = claim.job_id
        ledger = LedgerStore(engine, claim.job_id, claim.fencing_token)
        self.hear = Reporter(
            AttemptStore(engine), ledger, claim, Patience(1), Pulse(folder / "pulse")
        )

    @property
    def progress(self) -> Progress:
        return Progress.model_validate(self._store.show(self._job_id).progress)


@pytest.fixture
def job_id(engine: Engine, body: dict[str, Any]) -> Any:
    return JobStore(engine).submit(JobRequest.model_validate(body)).id


def a_round(number: int, masks: int = 4, known: int = 0) -> events.RoundStarted:
    return events.RoundStarted(number, 3, masks, known, 0.0)


def test_a_round_shows_masks_speed_and_time_left(
    engine: Engine, worker: FakeWorker, job_id: Any, tmp_path: Path
) -> None:
    attempt = Attempt(engine, worker.claim(), tmp_path)
    assert attempt.progress == Progress(stage=Stage.LOADING)
    attempt.hear(events.ModelLoaded("Llama", "cpu", "float32", 10, 9, 3, 17.0))
    attempt.hear(a_round(1, known=2))
    for trial in (2, 3):
        attempt.hear(events.MaskEvaluated(1, trial, -2.0, 1.5))
    shown = attempt.progress
    assert (shown.round, shown.rounds, shown.masks_evaluated, shown.masks_per_round) == (1, 3, 4, 4)
    assert (shown.masks_resumed, shown.seconds_per_mask) == (2, 1.5)
    assert (shown.seconds_left, shown.seconds_left_basis) == (2 * 4 * 1.5, TimeBasis.MASKS)
    assert shown.forward_passes_per_second == 0.0
    attempt.hear(events.RoundFinished(1, 3, 0.1, 18.0, 5.0))
    shown = attempt.progress
    assert (shown.sparsity, shown.perplexity, shown.perplexity_before) == (0.1, 18.0, 17.0)
    assert (shown.seconds_left, shown.seconds_left_basis) == (2 * (6.0 + 2.0), TimeBasis.ROUNDS)
    attempt.hear(events.SaveStarted("folder"))
    shown = attempt.progress
    assert (shown.stage, shown.seconds_left, shown.seconds_left_basis) == (Stage.SAVING, None, None)


def test_a_resumed_job_shows_what_it_had_reached_and_nothing_of_its_old_speed(
    engine: Engine, worker: FakeWorker, job_id: Any, tmp_path: Path
) -> None:
    claim = worker.claim()
    attempt = Attempt(engine, claim, tmp_path)
    attempt.hear(events.ModelLoaded("Llama", "cpu", "float32", 10, 9, 3, 17.0))
    attempt.hear(a_round(1))
    for trial in range(4):
        attempt.hear(events.MaskEvaluated(1, trial, -2.0, 1.5))
    attempt.hear(events.RoundFinished(1, 3, 0.1, 18.0, 8.0))
    worker.release(claim, "drained")
    waiting = attempt.progress
    assert (waiting.stage, waiting.seconds_left) == (Stage.WAITING, None)
    assert (waiting.seconds_left_basis, waiting.forward_passes_per_second) == (None, None)
    again = Attempt(engine, worker.claim(), tmp_path)
    loading = again.progress
    assert (loading.stage, loading.sparsity, loading.perplexity) == (Stage.LOADING, 0.1, 18.0)
    assert (loading.round, loading.seconds_per_mask) == (1, None)
    again.hear(a_round(2, known=3))
    shown = again.progress
    assert (shown.round, shown.masks_evaluated, shown.masks_resumed) == (2, 3, 3)
    assert (shown.sparsity, shown.perplexity, shown.seconds_left) == (0.1, 18.0, None)


def test_a_job_that_ends_early_has_no_time_left(
    engine: Engine, worker: FakeWorker, job_id: Any, tmp_path: Path
) -> None:
    claim = worker.claim()
    attempt = Attempt(engine, claim, tmp_path)
    attempt.hear(a_round(1))
    for trial in range(4):
        attempt.hear(events.MaskEvaluated(1, trial, -2.0, 1.5))
    JobStore(engine).ask(job_id, Wish.CANCEL)
    worker.release(claim, "cancelled")
    assert JobStore(engine).show(job_id).state == JobState.CANCELLED
    shown = attempt.progress
    assert (shown.masks_evaluated, shown.seconds_left, shown.seconds_left_basis) == (4, None, None)
