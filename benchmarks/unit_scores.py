"""The papers' scores of units, each in a few lines; the lower, the sooner a unit goes.

Weights W [D, C] of an output projection; statistics x of its inputs over the calibration tokens;
`columns` of C belong to one unit. All give [U] float64.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bonsai_core.gates import Gate
from bonsai_core.statistics import ColumnStatistics

Scores = NDArray[np.float64]


def magnitude(gate: Gate) -> Scores:
    """L2 norm of all weights of a unit: its columns of the output and the rows that feed them.

    The square root of the sum of w^2 over all coupled weights: the group norm of DepGraph (arXiv
    2301.12900) and of LLM-Pruner's L2 baseline (arXiv 2305.11627).
    """
    squares = _per_unit(gate.output.weight.double().square().sum(0), gate.columns)
    for linear, sections in gate.producers:
        rows = linear.weight.double().square().sum(1)
        parts = torch.split(rows, [size * gate.units for size in sections])
        for part, size in zip(parts, sections, strict=True):
            squares += _per_unit(part, size)
    return np.sqrt(squares)


def wanda(weight: Tensor, mean_square: Tensor, columns: int) -> Scores:
    """Wanda for whole units: sum of W^2 * E x^2 over a unit's columns and all rows.

    The square of Wanda's score |W| * ||x|| (arXiv 2306.11695, eq. 1), so that the sum over a unit
    is the mean square of what its columns give to the output, were they uncorrelated. FLAP's
    comparison (arXiv 2312.11983, Wanda-sp) sums |W| * ||x|| itself. Statistics are of the dense
    model for all layers.
    """
    return _per_unit(weight.double().square().sum(0).cpu() * mean_square.double(), columns)


def fluctuation(weight: Tensor, statistics: ColumnStatistics) -> Scores:
    """FLAP's score of columns: the variance of the input times the squared norm of the column.

    Var(x_j) * ||W_:,j||^2 (arXiv 2312.11983, eq. 5); [C]. The code that the authors released
    squares it once more in attention; the paper does not.
    """
    variance = (statistics.mean_square - statistics.mean.square()).clamp_min(0)
    return _array(variance * weight.double().square().sum(0).cpu())


def standardised(scores: Scores) -> Scores:
    """(S - mean S) / deviation of S within one gate: FLAP's standard scale (arXiv 2312.11983)."""
    deviation = scores.std()
    found: Scores = (scores - scores.mean()) / (deviation if deviation > 0 else 1.0)
    return found


def _per_unit(values: Tensor, size: int) -> Scores:
    found: Scores = _array(values).reshape(-1, size).sum(axis=1)
    return found


def _array(values: Tensor) -> Scores:
    found: Scores = values.cpu().numpy().astype(np.float64)
    return found
