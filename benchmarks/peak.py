"""The most memory that this process has had since it last asked."""

from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_FORGET_THE_PEAK = "5"


class Peak:
    """On CUDA the allocator's peak; else the peak of what lies in RAM, which needs Linux.

    The kernel's `VmHWM` is of this program alone; `ru_maxrss` may be of the one that started it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type != "cuda" and not _CLEAR.exists():
            raise SystemExit("peak memory is measured on Linux only")

    def bytes(self) -> int:
        """The peak so far."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        line = next(x for x in _STATUS.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    def restart(self) -> None:
        """From here on, only what comes counts."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            _CLEAR.write_text(_FORGET_THE_PEAK)
