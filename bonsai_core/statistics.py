"""What flows into the gates, gathered over forward passes of the calibration batch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bonsai_core.events import GoOn, regardless
from bonsai_core.gates import Gate
from bonsai_core.portions import sequences_at_once


@dataclass(frozen=True, slots=True)
class ColumnStatistics:
    """Moments of the columns of one gate over all calibration tokens; each [C] float64, CPU."""

    mean: Tensor
    mean_absolute: Tensor
    mean_square: Tensor


@torch.inference_mode()
def column_statistics(
    backbone: nn.Module, gates: Sequence[Gate], sequences: Tensor, go_on: GoOn = regardless
) -> list[ColumnStatistics]:
    """Moments of every gate's columns from one pass over `sequences` [N, S]; in order of gates."""
    sums = [torch.zeros(3, g.output.in_features, dtype=torch.float64) for g in gates]
    sums = [total.to(sequences.device) for total in sums]

    def add(index: int, values: Tensor) -> None:
        # Float32 within one forward pass, float64 between them.
        values = values.float()
        sums[index] += torch.stack(
            [values.sum(0), values.abs().sum(0), values.square().sum(0)]
        ).double()

    with listening(gates, add):
        forward_all(backbone, sequences, go_on)
    tokens = sequences.numel()
    return [ColumnStatistics(*(total / tokens).cpu().unbind()) for total in sums]


@contextmanager
def listening(gates: Sequence[Gate], hear: Callable[[int, Tensor], None]) -> Iterator[None]:
    """While open, `hear(index, values [tokens, C])` is called with what enters each gate."""

    def hook(index: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _module, inputs: hear(index, inputs[0].flatten(0, -2))

    handles = [
        gate.output.register_forward_pre_hook(hook(index)) for index, gate in enumerate(gates)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def forward_all(backbone: nn.Module, sequences: Tensor, go_on: GoOn) -> None:
    """Run the backbone over sequences [N, S], a few at a time, for the sake of its hooks."""
    batch = sequences_at_once(sequences.shape[1], sequences.device)
    for part in torch.split(sequences, batch):
        go_on()
        backbone(input_ids=part, use_cache=False)
