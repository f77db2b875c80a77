"""The gates of a live model: where units are tried and cut.

Shape letters of the core: N sequences, S positions, D hidden size, C columns of a gate, U units of
a gate, M masks, F candidates.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from bonsai_core.families import Family, GateKind, GatePattern, Widths

Units = NDArray[np.int64]
"""Positions of units within a gate, ascending."""


@dataclass(slots=True)
class Gate:
    """The input of one output projection, as long as the model lives.

    Attributes:
        name: ``3.mlp``: layer and kind.
        layer: index of the decoder layer.
        kind: attention or MLP.
        output: the projection whose input this is; its weight is [D, C].
        producers: the layers whose rows feed the gate, with rows per unit.
        columns: columns per unit; C = U * columns.
        price: parameters, biases included, that go when one unit goes.
        kept: the dense model's numbers of the units still there, in order; [U] int64.
    """

    name: str
    layer: int
    kind: GateKind
    output: nn.Linear
    producers: tuple[tuple[nn.Linear, int], ...]
    columns: int
    price: int
    kept: NDArray[np.int64]

    @property
    def units(self) -> int:
        """U, the number of units still there."""
        return len(self.kept)

    def columns_of(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """The columns of the units at these positions, in order; [len(units) * columns]."""
        return expand(units, self.columns)


def expand(units: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """The indices of units that are `size` long each: unit u is u*size .. u*size + size - 1."""
    return (units[:, None] * size + np.arange(size)[None, :]).reshape(-1)


def gates_of(model: nn.Module, family: Family, widths: Widths) -> list[Gate]:
    """The gates of a dense model, layer by layer, attention before MLP."""
    layers = model.get_submodule(family.layers)
    assert isinstance(layers, nn.ModuleList)
    return [
        _gate(layer, index, pattern, widths)
        for index, layer in enumerate(layers)
        for pattern in family.gates
    ]


def _gate(layer: nn.Module, index: int, pattern: GatePattern, widths: Widths) -> Gate:
    output = _linear(layer, pattern.output)
    columns = getattr(widths, pattern.columns)
    producers = tuple(
        (_linear(layer, producer.path), getattr(widths, producer.rows))
        for producer in pattern.producers
    )
    price = output.out_features * columns + sum(
        rows * (linear.in_features + (linear.bias is not None)) for linear, rows in producers
    )
    return Gate(
        name=f"{index}.{pattern.kind}",
        layer=index,
        kind=pattern.kind,
        output=output,
        producers=producers,
        columns=columns,
        price=price,
        kept=np.arange(output.in_features // columns),
    )


def _linear(layer: nn.Module, path: str) -> nn.Linear:
    linear = layer.get_submodule(path)
    assert isinstance(linear, nn.Linear), f"{path} is {type(linear).__name__}, not a linear layer"
    return linear
