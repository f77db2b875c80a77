"""Models larger than the device: layers that lie in host memory, and visit the device to run.

What is beside the layers, and as many of the last layers as there is room for, is on the device for
good: the last ones, because a trial runs from the layer that it changes to the end. The parameters
of every other layer point to copies on the device for the time of its forward pass, and then to the
host's memory again. That is the truth: whoever reads, swaps or cuts weights finds them there, and
no copy is ever written back. docs/decisions/0006 compares this with what accelerate offers.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bonsai_core.errors import InsufficientMemoryError
from bonsai_core.footprint import WEIGHTS_SHARE


class Streaming:
    """Keeps the weights on a device within a budget, however large the model is.

    Args:
        model: its weights in host memory; they move.
        backbone: the part of it that every forward pass goes through.
        layers: the decoder layers of the backbone.
        device: where forward passes run.
        budget: bytes that weights may take on the device. None: a share of what a GPU has free,
            and no limit on a CPU.

    Attributes:
        peak: the most bytes of weights that there were on the device at once.

    Raises:
        InsufficientMemoryError: the largest layer and what is beside the layers exceed the budget.
    """

    def __init__(
        self,
        model: nn.Module,
        backbone: nn.Module,
        layers: nn.ModuleList,
        device: torch.device,
        budget: int | None = None,
    ) -> None:
        self._model = model
        self._layers = layers
        self._device = device
        self._budget = _free(device) if budget is None else budget
        self._side = _side_stream(device)
        self._copies: dict[int, list[Tensor]] = {}
        self.peak = 0
        self.place()
        if self._first:
            # Weights may change between two passes, and what was fetched ahead would not follow.
            backbone.register_forward_pre_hook(lambda *_: self._copies.clear())

    @property
    def streamed(self) -> int:
        """How many layers do not stay on the device."""
        return self._first

    @property
    def resident(self) -> int:
        """Bytes of weights that are on the device now."""
        return self._staying + sum(map(_bytes, self._copies.values()))

    def place(self) -> None:
        """Let all stay that fits; called again once layers have become smaller."""
        self._copies.clear()
        layers, sizes = list(self._layers), [_bytes(_tensors(layer)) for layer in self._layers]
        beside = _bytes(_tensors(self._model)) - sum(sizes)
        self._first = _first_to_stay(sizes, beside, self._budget)
        self._staying = beside + sum(sizes[self._first :])
        self.peak = max(self.peak, self._staying)
        for number, layer in enumerate(layers):
            vars(layer).pop("forward", None)
            if number < self._first:
                self._prepare(number, layer)
        # All that the model has is moved: meanwhile it does not have the others.
        del self._layers[: self._first]
        self._model.to(self._device)
        del self._layers[:]
        self._layers.extend(layers)

    def _prepare(self, number: int, layer: nn.Module) -> None:
        """Have a layer come to the device whenever it runs."""
        stock: Callable[..., Any] = layer.forward
        if self._side:
            for tensor in _tensors(layer):
                tensor.data = tensor.data.pin_memory()  # copied while the device computes

        @functools.wraps(stock)
        def forward(*inputs: Any, **options: Any) -> Any:
            with self._visit(number, layer):
                return stock(*inputs, **options)

        layer.forward = forward

    @contextmanager
    def _visit(self, number: int, layer: nn.Module) -> Iterator[None]:
        """While open, a layer's weights are on the device, and the next one's are on their way."""
        if number not in self._copies:
            self._fetch(number)
        if self._side:
            torch.cuda.current_stream(self._device).wait_stream(self._side)
        tensors = list(_tensors(layer))
        host = [tensor.data for tensor in tensors]
        _point(tensors, self._copies[number])
        try:
            if self._has_room_for(number + 1):
                self._fetch(number + 1)
            yield
        finally:
            if self._side:
                # Otherwise the host runs ahead, and the copies of many layers wait to be used.
                torch.cuda.current_stream(self._device).synchronize()
            _point(tensors, host)
            del self._copies[number]

    def _has_room_for(self, number: int) -> bool:
        """Whether a layer is one that comes and goes, and can come already."""
        if number >= self._first or self._budget is None:
            return False
        return self.resident + _bytes(_tensors(self._layers[number])) <= self._budget

    def _fetch(self, number: int) -> None:
        with torch.cuda.stream(self._side):  # without effect where there is none
            self._copies[number] = [
                tensor.data.to(self._device, non_blocking=True, copy=True)
                for tensor in _tensors(self._layers[number])
            ]
        self.peak = max(self.peak, self.resident)


def _side_stream(device: torch.device) -> torch.cuda.Stream | None:
    """Where copies are made beside the computation; a CPU has none."""
    if device.type != "cuda":
        return None
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _free(device: torch.device) -> int | None:
    """Bytes for weights where nobody says how many; None: no limit."""
    if device.type != "cuda":
        return None
    return int(WEIGHTS_SHARE * torch.cuda.mem_get_info(device)[0])


def _first_to_stay(sizes: Sequence[int], beside: int, budget: int | None) -> int:
    """How many of the first layers have to come and go.

    Args:
        sizes: bytes of each layer.
        beside: bytes of what stays in any case.
        budget: bytes for all that is on the device at once.

    Raises:
        InsufficientMemoryError: not even one layer at a time fits.
    """
    if budget is None:
        return 0
    for first in range(len(sizes) + 1):
        visitors = max(sizes[:first], default=0) * min(first, 2)
        if beside + sum(sizes[first:]) + visitors <= budget:
            return first
    needed = beside + max(sizes)
    if needed > budget:
        raise InsufficientMemoryError(
            "the model's largest layer, and what it has beside its layers, take more",
            field="device_memory",
            value=budget,
            allowed=f"at least {needed} bytes for this model's weights",
            cure="use a device with more memory, or a smaller model.dtype",
        )
    return len(sizes)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """All that a module computes with, each once."""
    return itertools.chain(module.parameters(), module.buffers())


def _bytes(tensors: Iterator[Tensor] | Sequence[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _point(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.data = value
