"""The device that this worker's jobs run on, as it is now. The driver tells, not torch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psutil
import pynvml
import structlog

from jobs.devices import Device, DeviceKind
from worker.health import DeviceHealth

_log = structlog.get_logger(__name__)

# The driver counts devices by their place on the bus, CUDA by their speed unless it is told so.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


class DeviceWatch:
    """Looks at a device before each claim, and remembers what it saw.

    While a job runs, what the device has free is what the job has left; so what counts is the last
    look before it.

    Args:
        name: auto, cpu or cuda; auto is CUDA where the driver has a device now.
        most: bytes that jobs may take of it; None: all that nobody else holds.
        ask_again_seconds: how long a device that has failed is left alone.

    Attributes:
        kind: the same for as long as the worker lives, also when a GPU is lost.
        health: whether the device works.
    """

    def __init__(self, name: str, most: int | None = None, ask_again_seconds: float = 60.0) -> None:
        self._most = most
        self.kind = _kind(name)
        self.health = DeviceHealth(self.kind, ask_again_seconds)
        self._latest = self._seen()

    @property
    def latest(self) -> Device:
        """What was seen last."""
        return replace(self._latest, failed=self.health.failed)

    def look(self) -> Device:
        """The device as it is now."""
        before, self._latest = self._latest, self._seen()
        if _is_crowded(self._latest) and not _is_crowded(before):
            _log.warning(
                "device_crowded", device=self._latest.name, free_bytes=self._latest.free_bytes
            )
        return self.latest

    def _seen(self) -> Device:
        if self.kind is DeviceKind.CPU:
            return self._host()
        try:
            with _driver():
                return self._gpu()
        except pynvml.NVMLError as error:
            # The job will say what is wrong, if anything is.
            _log.warning("driver_failed", error=str(error))
            return Device(DeviceKind.CUDA, "cuda")

    def _gpu(self) -> Device:
        handle = _first_visible()
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        return Device(
            DeviceKind.CUDA,
            str(pynvml.nvmlDeviceGetName(handle)),
            self._allowed(int(memory.total)),
            self._allowed(int(memory.free)),
            f"{major}.{minor}",
        )

    def _host(self) -> Device:
        memory = psutil.virtual_memory()
        return Device(
            DeviceKind.CPU, "cpu", self._allowed(memory.total), self._allowed(memory.available)
        )

    def _allowed(self, found: int) -> int:
        return found if self._most is None else min(found, self._most)


def _kind(name: str) -> DeviceKind:
    if name != "auto":
        return DeviceKind(name)
    try:
        with _driver():
            _first_visible()
    except pynvml.NVMLError:
        return DeviceKind.CPU
    return DeviceKind.CUDA


@contextmanager
def _driver() -> Iterator[None]:
    # Each time anew, for drivers are restarted while workers run.
    pynvml.nvmlInit()
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def _first_visible() -> object:
    """The driver's handle of the first device that CUDA programs started here would see."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    first = "0" if visible is None else visible.split(",")[0].strip()
    if first.isdecimal():
        return pynvml.nvmlDeviceGetHandleByIndex(int(first))
    return pynvml.nvmlDeviceGetHandleByUUID(first)


def _is_crowded(device: Device) -> bool:
    """Whether somebody else holds most of a GPU."""
    free, memory = device.free_bytes, device.memory_bytes
    if device.kind is not DeviceKind.CUDA or free is None or memory is None:
        return False
    return free < memory / 2
