"""What a worker sees of its device: the host for real, a GPU as the driver's library tells it."""

from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest
from structlog.testing import capture_logs

from jobs.devices import Device, DeviceKind
from tests.devices import GIB
from worker.device import DeviceWatch


class Driver:
    """Stands where the driver's library does: one GPU by number and by UUID."""

    def __init__(self) -> None:
        self.free = 80 * GIB
        self.asked: list[Any] = []
        self.opened = 0

    def nvmlInit(self) -> None:  # noqa: N802 - the library's names
        self.opened += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.opened -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        self.asked.append(index)
        return "handle"

    nvmlDeviceGetHandleByUUID = nvmlDeviceGetHandleByIndex  # noqa: N815

    def nvmlDeviceGetMemoryInfo(self, _handle: str) -> SimpleNamespace:  # noqa: N802
        assert self.opened == 1
        return SimpleNamespace(total=80 * GIB, free=self.free)

    def nvmlDeviceGetCudaComputeCapability(self, _handle: str) -> tuple[int, int]:  # noqa: N802
        return 9, 0

    def nvmlDeviceGetName(self, _handle: str) -> str:  # noqa: N802
        return "NVIDIA H100 80GB HBM3"


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    found = Driver()
    for name in dir(Driver):
        if name.startswith("nvml"):
            monkeypatch.setattr(pynvml, name, getattr(found, name))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return found


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_gpu_is_what_the_driver_says(driver: Driver, name: str) -> None:
    expected = Device(DeviceKind.CUDA, "NVIDIA H100 80GB HBM3", 80 * GIB, 80 * GIB, "9.0")
    assert DeviceWatch(name).look() == expected
    assert driver.opened == 0  # it is left alone between two looks
    assert set(driver.asked) == {0}


@pytest.mark.parametrize(("visible", "asked"), [("3,1", 3), ("GPU-5f, GPU-6a", "GPU-5f")])
def test_the_first_that_the_environment_shows_is_the_one(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, visible: str, asked: int | str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    DeviceWatch("cuda")
    assert driver.asked == [asked]


def test_what_somebody_else_holds_is_seen_and_told_once(driver: Driver) -> None:
    watch = DeviceWatch("cuda")
    driver.free = 10 * GIB
    assert watch.latest.free_bytes == 80 * GIB  # as it was looked at
    with capture_logs() as logs:
        for _ in range(2):
            assert watch.look().free_bytes == 10 * GIB
    assert [log["event"] for log in logs] == ["device_crowded"]


def test_the_operator_may_leave_jobs_less(driver: Driver) -> None:
    watch = DeviceWatch("cuda", 24 * GIB)
    assert (watch.latest.memory_bytes, watch.latest.free_bytes) == (24 * GIB, 24 * GIB)
    driver.free = 8 * GIB
    assert watch.look().free_bytes == 8 * GIB


@pytest.mark.usefixtures("no_driver")
def test_without_a_driver_auto_is_the_host_and_cuda_is_not_known() -> None:
    host = DeviceWatch("auto").look()
    assert (host.kind, host.memory_bytes) == (DeviceKind.CPU, psutil.virtual_memory().total)
    assert host.free_bytes is not None
    assert 0 < host.free_bytes < psutil.virtual_memory().total
    assert DeviceWatch("cuda").look() == Device(DeviceKind.CUDA, "cuda")


def test_a_gpu_that_is_lost_does_not_become_a_cpu(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = DeviceWatch("auto")

    def lost(_index: int) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lost)
    assert watch.look() == Device(DeviceKind.CUDA, "cuda")
    assert driver.opened == 0


def test_cpu_never_asks_the_driver(driver: Driver) -> None:
    assert DeviceWatch("cpu").look().kind is DeviceKind.CPU
    assert driver.asked == []
