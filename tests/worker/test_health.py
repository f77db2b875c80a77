"""A device that has failed is asked again, and is left alone until it computes."""

import sys
import time
from pathlib import Path

import pytest

from jobs.devices import DeviceKind
from worker.health import DeviceHealth
from worker.probe import computes


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """While this file is there, the device that stands behind `probe` computes nothing."""
    file = tmp_path / "broken"
    file.touch()
    return file


@pytest.fixture
def probe(broken: Path) -> list[str]:
    return [sys.executable, "-c", f"import os; exit(os.path.exists({str(broken)!r}))"]


def test_a_device_that_fails_is_used_again_when_it_computes(broken: Path, probe: list[str]) -> None:
    health = DeviceHealth(DeviceKind.CUDA, 0, probe)
    assert health.recovers()  # it was not suspected
    assert not health.ask(lambda: None)
    assert health.failed
    assert not health.recovers()
    broken.unlink()
    assert health.recovers()
    assert not health.failed


def test_a_failed_device_is_left_alone_for_a_while(broken: Path, probe: list[str]) -> None:
    health = DeviceHealth(DeviceKind.CUDA, 3600, probe)
    assert not health.ask(lambda: None)
    broken.unlink()
    assert not health.recovers()


def test_a_device_that_never_answers_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.health._PATIENCE_SECONDS", 0.5)
    calls: list[None] = []
    silent = [sys.executable, "-c", "import time; time.sleep(600)"]
    assert not DeviceHealth(DeviceKind.CUDA, 0, silent).ask(lambda: calls.append(None))
    assert len(calls) > 1


def test_what_ends_the_wait_ends_the_probe(tmp_path: Path) -> None:
    done = tmp_path / "done"
    slow = [sys.executable, "-c", f"import time; time.sleep(1); open({str(done)!r}, 'w')"]

    def lose_the_lease() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        DeviceHealth(DeviceKind.CUDA, 0, slow).ask(lose_the_lease)
    time.sleep(1.5)
    assert not done.exists()


def test_a_cpu_is_not_suspected() -> None:
    health = DeviceHealth(DeviceKind.CPU, 0, ["false"])
    assert health.ask(lambda: None)
    assert health.recovers()


def test_the_probe_computes_on_a_device_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert computes("cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not DeviceHealth(DeviceKind.CUDA, 0).ask(lambda: None)
