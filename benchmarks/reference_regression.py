"""The regression of the paper's reference code, for its cost: a grid of linear models by Adam.

Written from its description: 36 settings (learning rate, batch size, weight of the L1 norm), each
fitted on 5 folds and judged by Kendall's tau, then one fit of the best on all masks: 181 fits of at
most 50 epochs, ended early after 10 without progress.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FOLDS = 5
EPOCHS = 50
PATIENCE = 10
LEARNING_RATES = (100.0, 10.0, 1.0, 0.1)
BATCHES = (32, 64, 128)
L1_WEIGHTS = (1e2, 1e-4, 0.0)


@dataclass(frozen=True, slots=True)
class Setting:
    """Of one linear model; the learning rate is 1 / (candidates absent in a mask * slowness)."""

    slowness: float
    batch: int
    l1: float


SETTINGS = [Setting(*found) for found in itertools.product(LEARNING_RATES, BATCHES, L1_WEIGHTS)]


def regress(masks: NDArray[np.bool_], utilities: NDArray[np.float64]) -> tuple[Tensor, int]:
    """The coefficients [F] of the best setting, and how many fits it took.

    Args:
        masks: [M, F].
        utilities: [M].
    """
    features = torch.from_numpy(masks).float()
    targets = torch.from_numpy(utilities - utilities.mean()).float()
    folds = torch.chunk(torch.arange(len(features)), FOLDS)
    taus = []
    for setting in SETTINGS:
        found = []
        for fold in folds:
            rest = torch.ones(len(features), dtype=torch.bool)
            rest[fold] = False
            weights = adam(features[rest], targets[rest], setting)
            found.append(kendall(features[fold] @ weights, targets[fold]))
        taus.append(np.mean(found))
    best = SETTINGS[int(np.argmax(taus))]
    return adam(features, targets, best), len(SETTINGS) * FOLDS + 1


def adam(features: Tensor, targets: Tensor, setting: Setting) -> Tensor:
    """One fit of the mean squared error with an L1 norm; the weights of its best epoch, [F]."""
    weights = torch.zeros(features.shape[1], requires_grad=True)
    absent = float(features.sum(1).mean())
    optimiser = torch.optim.Adam([weights], lr=1 / (absent * setting.slowness))
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser)
    random = torch.Generator().manual_seed(0)
    best, least, idle = weights.detach().clone(), float("inf"), 0
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(features), generator=random), setting.batch):
            error = (features[rows] @ weights - targets[rows]).square().mean()
            loss = error + setting.l1 * weights.abs().sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            error = float((features @ weights - targets).square().mean())
        schedule.step(error)
        idle = 0 if error < least else idle + 1
        if error < least:
            best, least = weights.detach().clone(), error
        if idle >= PATIENCE:
            break
    return best


def kendall(first: Tensor, second: Tensor) -> float:
    """Kendall's tau-a of two rankings; [n] each."""
    signs = torch.sign(first[:, None] - first) * torch.sign(second[:, None] - second)
    return float(signs.sum()) / (len(first) * (len(first) - 1))
