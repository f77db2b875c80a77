"""Prior scores of units: how much each seems to matter, before any mask is tried.

Pure functions on arrays; higher means more important. Scores are comparable within a gate only.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bonsai_core.config import Prior
from bonsai_core.statistics import ColumnStatistics


def unit_scores(
    prior: Prior,
    weight: Tensor,
    statistics: ColumnStatistics,
    columns_per_unit: int,
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """The prior of each unit of a gate: the mean over its columns.

    Args:
        prior: which score.
        weight: of the gate's output projection, [D, C].
        statistics: of the gate's columns.
        columns_per_unit: C / U.
        random: used by the random prior only.

    Returns:
        [U] float64, finite, not negative.
    """
    columns = _column_scores(prior, weight, statistics, random)
    return columns.reshape(-1, columns_per_unit).mean(axis=1)


def _column_scores(
    prior: Prior, weight: Tensor, statistics: ColumnStatistics, random: np.random.Generator
) -> NDArray[np.float64]:
    match prior:
        case Prior.WANDA:
            # Wanda (arXiv 2306.11695, eq. 1), averaged over the output rows: |W| * rms(x).
            size = weight.abs().mean(dim=0, dtype=torch.float32).double().cpu()
            return _array(size * statistics.mean_square.sqrt())
        case Prior.ACTIVATION:
            return _array(statistics.mean_absolute)
        case Prior.FLUCTUATION:
            # FLAP (arXiv 2312.11983, eq. 5): variance of the input times the column's squared norm.
            variance = (statistics.mean_square - statistics.mean.square()).clamp_min(0)
            norm = weight.float().square().sum(dim=0).double().cpu()
            return _array(variance * norm)
        case Prior.RANDOM:
            return random.random(weight.shape[1])
        case Prior.ELIMINATION:
            raise ValueError("this prior is no score of columns; see bonsai_core.elimination")


def _array(scores: Tensor) -> NDArray[np.float64]:
    return scores.numpy().astype(np.float64)
