"""Cutting: units leave the model for good. What masks try, this makes final."""

import numpy as np
import torch
from torch import Tensor, nn

from bonsai_core.gates import Gate, Units, expand


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
    for linear, rows in gate.producers:
        _keep_rows(linear, expand(keep, rows))
    _keep_columns(gate.output, gate.columns_of(keep))
    gate.kept = gate.kept[keep]
    return len(units) * gate.price


def _keep_rows(linear: nn.Linear, rows: Units) -> None:
    linear.weight = _parameter(linear.weight[_index(rows, linear)])
    if linear.bias is not None:
        linear.bias = _parameter(linear.bias[_index(rows, linear)])
    linear.out_features = len(rows)


def _keep_columns(linear: nn.Linear, columns: Units) -> None:
    linear.weight = _parameter(linear.weight[:, _index(columns, linear)])
    linear.in_features = len(columns)


def _index(indices: Units, linear: nn.Linear) -> Tensor:
    return torch.from_numpy(indices).to(linear.weight.device)


def _parameter(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.contiguous(), requires_grad=False)
