"""Cutting: units leave the model for good. What masks try, this makes final."""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from bonsai_core.families import Count
from bonsai_core.gates import Gate, Units, expand
from bonsai_core.live import Choice


def cut(gate: Gate, units: Units) -> int:
    """Remove units from a gate: the columns of its output, the rows of its producers.

    The linear layers keep their identity and get smaller weights; `gate.kept` follows.

    Args:
        gate: changed in place.
        units: positions among the units still there; not all of them.

    Returns:
        How many parameters went.
    """
    if not len(units):
        return 0
    keep = np.setdiff1d(np.arange(gate.units), units)
    assert len(keep), f"{gate.name}: a gate keeps at least one unit"
    for linear, sections in gate.producers:
        _keep_rows(linear, _rows(keep, sections, gate.units))
    _keep_columns(gate.output, gate.columns_of(keep))
    for modules in gate.lists:
        _keep_entries(modules, keep)
    gate.kept = gate.kept[keep]
    for module, count, per_unit in gate.counts:
        _say(module, count, gate.units * per_unit)
    return len(units) * gate.price


def _rows(keep: Units, sections: tuple[int, ...], units: int) -> Units:
    """The rows of these units in a producer: each section has those of all units, in order."""
    starts = np.cumsum([0, *sections[:-1]]) * units
    parts = [start + expand(keep, size) for start, size in zip(starts, sections, strict=True)]
    return np.concatenate(parts)


def _say(module: nn.Module, count: Count, number: int) -> None:
    """Tell a module a number that its code reads when it runs."""
    if count.in_config:
        # The layers share one config, and each has its own number from now on.
        module.config = copy.copy(module.config)
    setattr(module.config if count.in_config else module, count.name, number)


def _keep_rows(linear: nn.Linear, rows: Units) -> None:
    linear.weight = _parameter(linear.weight[_index(rows, linear)])
    if linear.bias is not None:
        linear.bias = _parameter(linear.bias[_index(rows, linear)])
    linear.out_features = len(rows)


def _keep_entries(modules: nn.ModuleList, entries: Units) -> None:
    kept = [modules[entry] for entry in entries]
    del modules[:]
    modules.extend(kept)


def _keep_columns(linear: nn.Linear, columns: Units) -> None:
    kept = linear.weight[:, _index(columns, linear)].contiguous()
    # A choice has no parameters: its weight is a buffer, and stays one.
    linear.weight = kept if isinstance(linear, Choice) else _parameter(kept)
    linear.in_features = len(columns)


def _index(indices: Units, linear: nn.Linear) -> Tensor:
    return torch.from_numpy(indices).to(linear.weight.device)


def _parameter(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.contiguous(), requires_grad=False)
