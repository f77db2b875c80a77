"""Which CUDA device a worker gets, found without torch."""

import os
import subprocess

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"


def visible_cuda_devices() -> list[str]:
    """What the environment allows, else what the driver lists."""
    allowed = os.environ.get(VISIBLE_DEVICES)
    if allowed is not None:
        return [device.strip() for device in allowed.split(",") if device.strip()]
    try:
        listing = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    # Parts of a divided device are listed below it, indented.
    count = sum(line.startswith("GPU ") for line in listing.stdout.splitlines())
    return [str(index) for index in range(count)]


def device_environment(device: str, worker: int, workers: int) -> dict[str, str]:
    """One device for each of several workers, round robin; counted from zero."""
    devices = visible_cuda_devices() if device == "cuda" and workers > 1 else []
    return {VISIBLE_DEVICES: devices[worker % len(devices)]} if devices else {}
