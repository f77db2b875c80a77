"""The time that a job still takes, and what that is based on."""

from pathlib import Path

import pytest

from jobs.progress import Progress, TimeBasis
from worker import estimate
from worker.estimate import Estimate
from worker.pulse import Pulse


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(estimate.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def pulse(tmp_path: Path) -> Pulse:
    return Pulse(tmp_path / "pulse")


def left(estimated: Progress) -> tuple[float | None, TimeBasis | None]:
    return estimated.seconds_left, estimated.seconds_left_basis


def test_nothing_is_known_before_anything_is_measured(pulse: Pulse) -> None:
    found = Estimate(pulse)
    found.round_started()
    progress = Progress(round=1, rounds=3, masks_per_round=10, masks_evaluated=4)
    estimated = found.of(progress, in_round=True)
    assert left(estimated) == (None, None)
    assert estimated.forward_passes_per_second is None


def test_masks_count_first_and_rounds_when_one_has_ended(pulse: Pulse, clock: list[float]) -> None:
    found = Estimate(pulse)
    found.round_started()
    for seconds in (1.0, 2.0, 9.0):
        found.mask_evaluated(seconds)
    progress = Progress(round=1, rounds=3, masks_per_round=4, masks_evaluated=3)
    assert left(found.of(progress, in_round=True)) == (2.0 + 2 * 4 * 2.0, TimeBasis.MASKS)
    found.mask_evaluated(2.0)
    found.round_finished(14.0 + 5.0)
    progress = progress.model_copy(update={"masks_evaluated": 4})
    two_rounds = 2 * (4 * 2.0 + 5.0)
    assert left(found.of(progress, in_round=False)) == (two_rounds, TimeBasis.ROUNDS)
    found.round_started()
    progress = progress.model_copy(update={"round": 2, "masks_evaluated": 0})
    assert left(found.of(progress, in_round=True)) == (two_rounds, TimeBasis.ROUNDS)


def test_rounds_without_masks_count_too(pulse: Pulse) -> None:
    found = Estimate(pulse)
    found.round_started()
    progress = Progress(round=1, rounds=3)
    assert left(found.of(progress, in_round=True)) == (None, None)
    found.round_finished(7.0)
    assert left(found.of(progress, in_round=False)) == (14.0, TimeBasis.ROUNDS)


def test_forward_passes_are_counted_while_masks_are_tried(pulse: Pulse, clock: list[float]) -> None:
    found = Estimate(pulse)
    found.round_started()

    def speed(passes: int, seconds: float) -> float | None:
        for _ in range(passes):
            pulse.beat()
        clock[0] += seconds
        found.mask_evaluated(seconds)
        progress = Progress(round=1, rounds=1, masks_per_round=9)
        return found.of(progress, in_round=True).forward_passes_per_second

    assert speed(8, 2.0) == 4.0
    assert speed(4, 1.0) == 4.0
    # Half a minute later the first ones are forgotten.
    speed(20, 40.0)
    assert speed(10, 1.0) == 10.0
    # What is done between two rounds is not trying.
    clock[0] += 100
    found.round_started()
    assert speed(6, 2.0) == 3.0
