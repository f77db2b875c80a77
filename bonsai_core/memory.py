"""Running out of a device's memory: how it is told, and what there was."""

import re

import psutil
import torch

from bonsai_core.errors import InsufficientMemoryError

_WANTED = re.compile(r"tried to allocate ([\d.]+ ?\w+)", re.IGNORECASE)
_ON_CPU = "can't allocate memory"


def shortage(error: Exception, device: torch.device) -> InsufficientMemoryError | None:
    """What an error says about the memory of a device; None: it is about something else.

    To be asked where the error is caught, while the memory is still as it was.
    """
    short = isinstance(error, torch.OutOfMemoryError | MemoryError) or _ON_CPU in str(error)
    if not short:
        return None
    found = _WANTED.search(str(error))
    wanted = found[1] if found else "an unknown amount"
    free, used = _memory(device)
    return InsufficientMemoryError(
        "there was no room for one sequence at a time",
        field="device",
        value=f"{wanted}, beside {used} bytes in use and {free} bytes free",
        cure="use a device with more memory or free this one, a smaller model.dtype, or a shorter "
        "calibration.sequence_length",
    )


def give_back(device: torch.device) -> None:
    """Return memory that torch keeps for later use."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _memory(device: torch.device) -> tuple[int, int]:
    """Bytes free on the device, and bytes that this process uses of it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0], torch.cuda.memory_allocated(device)
    return psutil.virtual_memory().available, psutil.Process().memory_info().rss
