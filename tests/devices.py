"""Devices that tests say a worker has."""

from jobs.devices import Device, DeviceKind

GIB = 2**30
HOST = Device(DeviceKind.CPU, "cpu", 32 * GIB, 32 * GIB)


def gpu(memory: int, free: int | None = None) -> Device:
    """One with so many GiB, of which so many are free (all)."""
    free = memory if free is None else free
    return Device(DeviceKind.CUDA, "NVIDIA A100", memory * GIB, free * GIB, "8.0")
