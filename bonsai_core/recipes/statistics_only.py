"""No trials: equal shares of every layer, the units in the order of the prior.

In the layout `per_layer` the MLPs give first, since a channel is a fine unit and an attention unit
a coarse one; attention gives when the MLPs have lost two thirds.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bonsai_core.config import Layout, Pruning
from bonsai_core.families import GateKind
from bonsai_core.gates import Units
from bonsai_core.recipe import Decision, Situation, Trial
from bonsai_core.selection import GateShape, removable, select

Floats = NDArray[np.float64]
ATTENTION_BEGINS = 2 / 3
"""The share of an MLP that goes before attention does."""


class StatisticsOnly:
    """See the module."""

    def __init__(self, pruning: Pruning) -> None:
        self._pruning = pruning
        self.prior = pruning.prior

    def rounds(self, goal: int, total: int) -> int:  # noqa: ARG002
        """See `Recipe.rounds`."""
        return 1

    def propose(self, situation: Situation) -> Sequence[Trial]:  # noqa: ARG002
        """See `Recipe.propose`: nothing."""
        return []

    def decide(
        self,
        situation: Situation,
        trials: Sequence[Trial],  # noqa: ARG002
        utilities: NDArray[np.float64],  # noqa: ARG002
    ) -> Decision:
        """See `Recipe.decide`."""
        absent = equal_shares(situation, self._pruning.layout)
        damping = self._pruning.damping if self._pruning.refit else None
        return Decision(absent, cut=True, damping=damping)


def equal_shares(situation: Situation, layout: Layout) -> list[Units]:
    """The plan that takes the same share of every gate of a kind, and meets the goal."""
    costs = [_share_gone(shape) for shape in situation.shapes]
    return planned(situation, costs, layout)


def planned(situation: Situation, costs: Sequence[Floats], layout: Layout) -> list[Units]:
    """The plan that meets the goal at the least cost, the units of a gate going by their scores.

    Args:
        situation: the round's.
        costs: per gate, ascending: the cost per parameter of removing its weakest unit, the next,
            and so on; [U].
        layout: of the result.
    """
    candidates, importance = [], []
    for shape, scores, cost in zip(situation.shapes, situation.scores, costs, strict=True):
        weakest = np.argsort(scores, kind="stable")[: removable(shape)]
        order = np.argsort(weakest)
        candidates.append(weakest[order].astype(np.int64))
        # Equal costs would let units go in another order than that of their scores.
        ranks = np.arange(len(weakest))
        distinct = cost[: len(weakest)] * (1 + 1e-9 * ranks) + 1e-300 * ranks
        importance.append((distinct * shape.price)[order])
    return select(situation.shapes, candidates, importance, situation.goal, layout=layout)


def _share_gone(shape: GateShape) -> Floats:
    share = np.arange(1, shape.units + 1) / shape.units
    return ATTENTION_BEGINS + share / shape.units if shape.kind is GateKind.ATTENTION else share
