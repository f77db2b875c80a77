"""The order in which a gate's units are best removed, the kept ones taking over by least squares.

Optimal brain surgery for whole columns (arXiv 2208.11580, eq. 7 and 8): with G the second moment of
the gate's input and W its projection, removing the columns S at best costs

    W_S (inv(G)_SS)^-1 W_S',    after which    W -= W_S (inv(G)_SS)^-1 inv(G)_S:

and the inverse of what is left follows by the same downdate. Pure functions on tensors.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BLOCK = 32
"""Channels removed between two updates: one by one costs 32 times as much and orders the same."""

_LEAST_STRENGTH = 1e-30

_INVERTED_AT_ONCE = 8192
"""Columns of the widest matrix whose inverse is made in one piece; for that a GPU takes three times
the memory of the matrix."""

_COLUMNS = 1024
"""Columns of a wider one's inverse that are made at a time."""


@dataclass(frozen=True, slots=True)
class Elimination:
    """Units in the order of their removal.

    Attributes:
        order: positions of the units, the first to go first; [count] int64.
        damage: mean squared error of the projection's output, summed over its D rows, once the
            units up to here are gone and the kept columns are refitted; ascending, [count] float64.
    """

    order: NDArray[np.int64]
    damage: NDArray[np.float64]


@torch.inference_mode()
def eliminate(
    weight: Tensor, moments: Tensor, unit_columns: int, count: int, damping: float
) -> Elimination:
    """Remove `count` units greedily, least damage first.

    Args:
        weight: of the output projection, [D, C].
        moments: second moments of its input, [C, C].
        unit_columns: columns per unit; C = U * unit_columns.
        count: how many units go, at most U - 1.
        damping: added to the diagonal, as a share of its mean.
    """
    inverse = _inverse(moments, damping)
    weight = weight.float().clone()
    alive = torch.ones(weight.shape[1] // unit_columns, dtype=torch.bool, device=weight.device)
    order: list[int] = []
    damage: list[float] = []
    total = 0.0
    while len(order) < count:
        costs = _costs(weight, inverse, unit_columns).masked_fill(~alive, torch.inf)
        together = min(_BLOCK if unit_columns == 1 else 1, count - len(order))
        units = torch.argsort(costs, stable=True)[:together]
        added = _remove(weight, inverse, _columns(units, unit_columns))
        alive[units] = False
        order += units.tolist()
        # Units that go together share what they cost, so that the damage tells their order.
        damage += [total + added * (place + 1) / together for place in range(together)]
        total += added
    return Elimination(np.array(order, dtype=np.int64), np.array(damage))


def scores(
    weight: Tensor, moments: Tensor, unit_columns: int, damping: float
) -> NDArray[np.float64]:
    """A prior from the order of elimination: the damage done once a unit has gone, [U].

    Args:
        weight: see `eliminate`.
        moments: see `eliminate`.
        unit_columns: see `eliminate`.
        damping: see `eliminate`.
    """
    units = weight.shape[1] // unit_columns
    found = eliminate(weight, moments, unit_columns, units - 1, damping)
    of_unit = np.full(units, 2 * found.damage[-1] if len(found.damage) else 1.0)
    of_unit[found.order] = found.damage
    return of_unit


def damped(moments: Tensor, damping: float) -> Tensor:
    """Moments in float64 with `damping` times their mean diagonal added to the diagonal."""
    matrix = moments.to(torch.float64, copy=True)
    matrix.diagonal().add_(ridge(moments, damping))
    return matrix


def ridge(moments: Tensor, damping: float) -> Tensor:
    """What `damped` adds to the diagonal; a scalar in float64."""
    strength = damping * moments.diagonal().double().mean()
    # An expert that no token takes has no moments; its inverse must still be a number in float32.
    return strength.clamp_min(_LEAST_STRENGTH)


def factor(matrix: Tensor) -> Tensor:
    """The lower Cholesky factor of a symmetric matrix, in the memory of that matrix.

    Of a wide layer one float64 matrix takes 1.6 GB, on a device that the model has filled.
    """
    # Lapack's order is by columns; the transpose has it, and is the same matrix.
    columns = matrix.mT
    return torch.linalg.cholesky(columns, out=columns)


def solved(lower: Tensor, right: Tensor) -> Tensor:
    """X of A X = B, from the lower Cholesky factor of A [C, C] and B [C, K].

    As `torch.cholesky_solve`, which on a GPU copies the factor first.
    """
    half = torch.linalg.solve_triangular(lower, right, upper=False)
    return torch.linalg.solve_triangular(lower.mT, half, upper=True)


def _inverse(moments: Tensor, damping: float) -> Tensor:
    lower = factor(damped(moments, damping))
    if len(lower) <= _INVERTED_AT_ONCE:
        return torch.cholesky_inverse(lower).float()
    inverse = torch.empty_like(moments, dtype=torch.float32)
    for start in range(0, len(lower), _COLUMNS):
        count = min(_COLUMNS, len(lower) - start)
        unit = lower.new_zeros(len(lower), count)
        unit[start : start + count].fill_diagonal_(1)
        inverse[:, start : start + count] = solved(lower, unit)
    return inverse


def _costs(weight: Tensor, inverse: Tensor, unit_columns: int) -> Tensor:
    """What each unit would cost if it went next; [U]."""
    if unit_columns == 1:
        return weight.square().sum(0) / inverse.diagonal()
    units = weight.shape[1] // unit_columns
    blocks = inverse.view(units, unit_columns, units, unit_columns)
    blocks = torch.stack([blocks[u, :, u] for u in range(units)])
    columns = weight.view(-1, units, unit_columns).transpose(0, 1)
    return (columns @ torch.linalg.inv(blocks.double()).float() * columns).sum((1, 2))


def _remove(weight: Tensor, inverse: Tensor, columns: Tensor) -> float:
    """Remove columns and let the others take over, in place; the squared error this adds."""
    inner = torch.linalg.inv(inverse[columns][:, columns].double()).float()
    gone = weight[:, columns]
    added = float((gone @ inner * gone).sum())
    update = inner @ inverse[columns]
    weight -= gone @ update
    inverse -= inverse[:, columns] @ update
    # What is left of removed columns is rounding; a unit diagonal keeps later blocks invertible.
    weight[:, columns] = 0
    inverse[:, columns] = 0
    inverse[columns] = 0
    inverse[columns, columns] = 1
    return max(0.0, added)


def _columns(units: Tensor, unit_columns: int) -> Tensor:
    offsets = torch.arange(unit_columns, device=units.device)
    return (units[:, None] * unit_columns + offsets).flatten()
