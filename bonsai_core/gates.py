"""The gates of a live model: where units are tried and cut.

Shape letters of the core: N sequences, S positions, D hidden size, C columns of a gate, U units of
a gate, M masks, F candidates.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bonsai_core.families import Count, ExpertUnits, Family, GateKind, GatePattern, Widths

Units = NDArray[np.int64]
"""Positions of units within a gate, ascending."""


@dataclass(slots=True)
class Gate:
    """The input of one output projection, as long as the model lives.

    Attributes:
        name: ``3.mlp``: layer and kind; in a mixture of experts ``3.mlp.5``, with the expert.
        layer: index of the decoder layer.
        kind: attention, MLP or experts.
        output: the projection whose input this is; its weight is [D, C].
        producers: the layers whose rows feed the gate, with rows per unit in each of its sections.
        columns: columns per unit; C = U * columns.
        price: parameters, biases included, that go when one unit goes.
        kept: the dense model's numbers of the units still there, in order; [U] int64.
        dense_units: how many units the dense model has here.
        counts: the modules that must be told how many units there are, with how many of what they
            count belong to one.
        lists: lists of modules with one entry for each unit.
        weightless: the output has no weights that could take over for units that go.
        routed: not all tokens come by, but those that a router sends here.
    """

    name: str
    layer: int
    kind: GateKind
    output: nn.Linear
    producers: tuple[tuple[nn.Linear, tuple[int, ...]], ...]
    columns: int
    price: int
    kept: NDArray[np.int64]
    dense_units: int
    counts: tuple[tuple[nn.Module, Count, int], ...] = ()
    lists: tuple[nn.ModuleList, ...] = ()
    weightless: bool = False
    routed: bool = False

    @property
    def units(self) -> int:
        """U, the number of units still there."""
        return len(self.kept)

    def columns_of(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """The columns of the units at these positions, in order; [len(units) * columns]."""
        return expand(units, self.columns)

    def gone(self, units: NDArray[np.int64]) -> Tensor:
        """Which columns are those of the units at these positions; [C] bool, CPU."""
        columns = torch.zeros(self.output.in_features, dtype=torch.bool)
        columns[torch.from_numpy(self.columns_of(units))] = True
        return columns


def expand(units: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """The indices of units that are `size` long each: unit u is u*size .. u*size + size - 1."""
    return (units[:, None] * size + np.arange(size)[None, :]).reshape(-1)


def gates_of(
    model: nn.Module,
    family: Family,
    widths: Widths,
    experts: ExpertUnits = ExpertUnits.CHANNELS,
) -> list[Gate]:
    """The gates of a dense model, layer by layer, attention before MLP.

    Args:
        model: live, as `models.load` gives it.
        family: its family.
        widths: its widths.
        experts: what the units of a mixture are.
    """
    layers = model.get_submodule(family.layers)
    assert isinstance(layers, nn.ModuleList)
    return [
        gate
        for index, layer in enumerate(layers)
        for pattern in family.gates(experts)
        if pattern.sparse is None or pattern.sparse is widths.sparse[index]
        for gate in _gates(layer, index, pattern, widths)
    ]


def _gates(layer: nn.Module, index: int, pattern: GatePattern, widths: Widths) -> list[Gate]:
    """The gates of one pattern in a layer: one, or one of each expert."""
    name = f"{index}.{pattern.kind}"
    if not pattern.copies:
        return [_gate(layer, index, name, pattern, widths)]
    return [
        _gate(layer, index, f"{name}.{number}", _numbered(pattern, number), widths)
        for number in range(getattr(widths, pattern.copies))
    ]


def _numbered(pattern: GatePattern, number: int) -> GatePattern:
    """The pattern of one expert."""
    return replace(
        pattern,
        output=pattern.output.format(number),
        producers=tuple(
            replace(producer, path=producer.path.format(number)) for producer in pattern.producers
        ),
    )


def _gate(layer: nn.Module, index: int, name: str, pattern: GatePattern, widths: Widths) -> Gate:
    output = _linear(layer, pattern.output)
    lists = tuple(_list(layer, path) for path in pattern.lists)
    columns = getattr(widths, pattern.columns)
    units = output.in_features // columns
    producers = tuple(
        (
            _linear(layer, producer.path),
            tuple(getattr(widths, section) for section in producer.sections),
        )
        for producer in pattern.producers
    )
    price = output.out_features * columns + sum(
        sum(sections) * (linear.in_features + (linear.bias is not None))
        for linear, sections in producers
    )
    price += sum(part.numel() for modules in lists for part in modules[0].parameters())
    counts = tuple(
        (layer.get_submodule(count.module), count, getattr(widths, count.per_unit))
        for count in pattern.counts
    )
    return Gate(
        name=name,
        layer=index,
        kind=pattern.kind,
        output=output,
        producers=producers,
        columns=columns,
        price=price,
        kept=np.arange(units),
        dense_units=units,
        counts=counts,
        lists=lists,
        weightless=pattern.weightless,
        routed=bool(pattern.copies),
    )


def _list(layer: nn.Module, path: str) -> nn.ModuleList:
    modules = layer.get_submodule(path)
    assert isinstance(modules, nn.ModuleList)
    return modules


def _linear(layer: nn.Module, path: str) -> nn.Linear:
    linear = layer.get_submodule(path)
    assert isinstance(linear, nn.Linear), f"{path} is {type(linear).__name__}, not a linear layer"
    return linear
