"""From masks and utilities to the importance of candidates: ridge regression in closed form.

Pure functions on arrays. With M masks and F candidates the cost is one M x M (or, when there are
fewer candidates, F x F) eigendecomposition and two products with the masks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

REGULARISATIONS = np.logspace(-4, 4, 33)
"""Tried ridge strengths, relative to the mean eigenvalue of the centred masks."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A linear model of utilities over masks.

    Attributes:
        coefficients: change of the utility when the candidate is absent; [F].
        regularisation: the ridge strength chosen, absolute.
        predicted: utility of each mask, from the others; [M].
        leave_one_out_error: mean squared error of these predictions.
        explained: 1 - that error / the variance of the utilities; may be negative.
    """

    coefficients: Floats
    regularisation: float
    predicted: Floats
    leave_one_out_error: float
    explained: float


def fit(masks: NDArray[np.bool_], utilities: Floats) -> Fit:
    """Fit utilities by ridge with intercept; strength by exact leave-one-out error.

    Args:
        masks: [M, F], True where a candidate is absent.
        utilities: [M], finite.

    Returns:
        The fit; its regularisation is the one of `REGULARISATIONS` (times the mean eigenvalue)
        with the least leave-one-out error, the strongest of equals.
    """
    mean = utilities.mean()
    targets = utilities - mean
    left, eigenvalues = _left_basis(masks)
    if not len(eigenvalues):
        error, nothing = float(np.square(targets).mean()), np.zeros(masks.shape[1])
        return Fit(nothing, np.inf, np.full(len(masks), mean), error, 0.0)
    strengths = REGULARISATIONS * eigenvalues.mean()
    residuals = [_left_out(left, eigenvalues, targets, s) for s in strengths]
    errors = np.array([np.square(of_strength).mean() for of_strength in residuals])
    best = len(errors) - 1 - int(np.argmin(errors[::-1]))
    strength = float(strengths[best])
    # beta = X' (X X' + strength I)^-1 y, with X X' = left diag(eigenvalues) left'. The dual sums to
    # zero, so the masks need not be centred for it.
    dual = left @ ((left.T @ targets) / (eigenvalues + strength))
    variance = float(np.square(targets).mean())
    error = float(errors[best])
    explained = 1 - error / variance if variance else 0.0
    return Fit(dual @ masks, strength, utilities - residuals[best], error, explained)


def _left_basis(masks: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Left singular vectors [M, R] and squared singular values [R] > 0 of the centred masks."""
    rows, columns = masks.shape
    if rows <= columns:
        # Counts are whole numbers, which float32 holds exactly up to 2^24 candidates.
        counts = masks.astype(np.float32)
        gram = (counts @ counts.T).astype(np.float64)
        mean = gram.mean(axis=0)
        eigenvalues, left = np.linalg.eigh(gram - mean - mean[:, None] + mean.mean())
    else:
        features = masks - masks.mean(axis=0)
        eigenvalues, right = np.linalg.eigh(features.T @ features)
        left = features @ right
    alive = eigenvalues > eigenvalues.max(initial=0.0) * 1e-12
    eigenvalues, left = eigenvalues[alive], left[:, alive]
    if rows > columns:
        left = left / np.sqrt(eigenvalues)
    return left, eigenvalues


def _left_out(left: Floats, eigenvalues: Floats, targets: Floats, strength: float) -> Floats:
    """Leave-one-out errors, [M]: residuals over one minus leverage (Allen's PRESS)."""
    shrinkage = eigenvalues / (eigenvalues + strength)
    residuals = targets - left @ (shrinkage * (left.T @ targets))
    # The intercept, refitted for each left-out mask, adds 1/M to every leverage.
    leverage = np.square(left) @ shrinkage + 1 / len(targets)
    out: Floats = residuals / (1 - leverage)
    return out
