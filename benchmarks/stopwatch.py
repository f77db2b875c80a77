"""Seconds of the parts of some work: of the processor and on the wall."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long something took.

    Attributes:
        cpu: of this process, all its threads; on a shared machine the steadier of the two.
        wall: with the device waited for.
    """

    cpu: float = 0.0
    wall: float = 0.0

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.cpu + other.cpu, self.wall + other.wall)

    def compared(self, device: torch.device) -> float:
        """Those that tell: of a CPU, which others share, or on the wall for a GPU."""
        return self.wall if device.type == "cuda" else self.cpu

    def __mul__(self, times: float) -> "Seconds":
        return Seconds(self.cpu * times, self.wall * times)


def clocks(device: torch.device) -> Seconds:
    """The clocks as they stand, all work on the device being done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return Seconds(time.process_time(), time.perf_counter())


def since(start: Seconds, device: torch.device) -> Seconds:
    """What has passed since `start`."""
    return clocks(device) + start * -1


def timed(work: Callable[[], Value], device: torch.device) -> tuple[Value, Seconds]:
    """What `work` gives, and what it took."""
    start = clocks(device)
    value = work()
    return value, since(start, device)
