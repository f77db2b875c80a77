"""Workers share out the CUDA devices without asking torch."""

import stat
from pathlib import Path

import pytest

from client.embedded.devices import device_environment, visible_cuda_devices


def test_devices_that_the_environment_names_go_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5f")
    chosen = [
        device_environment("cuda", worker, workers=3)["CUDA_VISIBLE_DEVICES"] for worker in range(3)
    ]
    assert chosen == ["3", "GPU-5f", "3"]


def test_devices_that_the_driver_lists_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text(
        "#!/bin/sh\necho 'GPU 0: NVIDIA (UUID: GPU-a)'\necho '  MIG 1g.10gb Device 0: (UUID: b)'\n"
        "echo 'GPU 1: NVIDIA (UUID: GPU-c)'\n"
    )
    driver.chmod(driver.stat().st_mode | stat.S_IXUSR)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert visible_cuda_devices() == ["0", "1"]
    assert device_environment("cuda", 1, workers=2) == {"CUDA_VISIBLE_DEVICES": "1"}


@pytest.mark.parametrize(("device", "workers"), [("auto", 4), ("cpu", 4), ("cuda", 1)])
def test_otherwise_nothing_is_decided(
    device: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert device_environment(device, 0, workers) == {}


def test_without_a_driver_nothing_is_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert device_environment("cuda", 0, workers=2) == {}
