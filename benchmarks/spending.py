"""What a method spends: tokens through the layers, processor seconds, wall seconds."""

import time
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from bonsai_core import blocks


@dataclass(frozen=True, slots=True)
class Spending:
    """The cost of some work.

    Attributes:
        forward_tokens: tokens that entered each decoder layer, summed over the layers and divided
            by their number: the tokens of whole forward passes that cost as much. A pass that
            starts in the middle of the model counts for the layers it runs, not for those that
            pass on what they get; passes through models pruned already count like dense ones;
            the head is not counted.
        cpu_seconds: of this process, all its threads.
        wall_seconds: with the device waited for; on a GPU this is its time.
    """

    forward_tokens: float = 0.0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0

    def __add__(self, other: "Spending") -> "Spending":
        return Spending(
            self.forward_tokens + other.forward_tokens,
            self.cpu_seconds + other.cpu_seconds,
            self.wall_seconds + other.wall_seconds,
        )

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


class Meter:
    """While open, adds up what is spent on any model whose layers are like these."""

    def __init__(self, layers: nn.ModuleList, device: torch.device) -> None:
        self._kind = type(layers[0])
        self._layers = len(layers)
        self._device = device
        self._tokens = 0

    def __enter__(self) -> Self:
        self._handle = register_module_forward_pre_hook(self._hear)
        self.restart()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._handle.remove()

    def restart(self) -> None:
        """Forget what was spent so far."""
        self._tokens = 0
        self.restart_clocks()

    def restart_clocks(self) -> None:
        """Forget the seconds so far, but not the tokens."""
        self._started = self._clocks()

    def spent(self) -> Spending:
        """What was spent since the start."""
        cpu, wall = self._clocks()
        return Spending(
            self._tokens / self._layers, cpu - self._started[0], wall - self._started[1]
        )

    def _clocks(self) -> tuple[float, float]:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.process_time(), time.perf_counter()

    def _hear(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if type(module) is self._kind and not _passes_on(module):
            self._tokens += inputs[0].shape[:-1].numel()


def _passes_on(layer: nn.Module) -> bool:
    """Whether `bonsai_core.blocks` has the layer give back what it gets, without computing."""
    forward = vars(layer).get("forward")
    return getattr(forward, "__module__", None) == blocks.__name__
