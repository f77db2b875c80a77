"""A child that pauses for too long is told from one that is slow."""

import os
import time
from pathlib import Path

import pytest

from worker import pulse
from worker.pulse import BEFORE_FIRST, PATIENCE, Pulse, PulseWatch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that both sides see, in its one entry."""
    now = [1000.0]
    monkeypatch.setattr(pulse.time, "monotonic", lambda: now[0])
    return now


def test_loading_is_given_more_time_than_a_pause(clock: list[float], tmp_path: Path) -> None:
    watch = PulseWatch(tmp_path / "pulse", 60)
    clock[0] += BEFORE_FIRST * 60 - 1
    assert watch.stalled() is None
    clock[0] += 2
    assert watch.stalled() == BEFORE_FIRST * 60 + 1


def test_a_child_may_pause_for_many_times_its_longest_pause(
    clock: list[float], tmp_path: Path
) -> None:
    child, watch = Pulse(tmp_path / "pulse"), PulseWatch(tmp_path / "pulse", 60)
    child.beat()
    assert watch.stalled() is None
    assert watch.limit == 60
    clock[0] += 30
    child.beat()
    assert watch.stalled() is None
    assert watch.limit == PATIENCE * 30
    clock[0] += PATIENCE * 30 - 1
    assert watch.stalled() is None
    clock[0] += 2
    assert watch.stalled() == PATIENCE * 30 + 1


def test_each_beat_starts_the_wait_again(clock: list[float], tmp_path: Path) -> None:
    path = tmp_path / "pulse"
    child, watch = Pulse(path), PulseWatch(path, 60)
    for number in range(5):
        child.beat()
        os.utime(path, ns=(number, number))  # faster than the file system's clock ticks
        clock[0] += 50
        assert watch.stalled() is None
    clock[0] += PATIENCE * 50 + 1
    assert watch.stalled() is not None


def test_beating_before_every_pass_costs_next_to_nothing(tmp_path: Path) -> None:
    child, start = Pulse(tmp_path / "pulse"), time.monotonic()
    written = set()
    while time.monotonic() - start < 0.5:
        child.beat()
        written.add((tmp_path / "pulse").stat().st_mtime_ns)
    assert len(written) <= 4
