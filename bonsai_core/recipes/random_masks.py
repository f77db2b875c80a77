"""The paper's recipe (arXiv 2402.05406, algorithm 1): random masks with complements, a regression.

Every round cuts its share of the parameters: the candidates whose absence costs least.
"""

import math
from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from bonsai_core.config import Pruning
from bonsai_core.gates import Units
from bonsai_core.importance import fit
from bonsai_core.masks import draw, split
from bonsai_core.recipe import Decision, Situation, Trial
from bonsai_core.seeds import generator
from bonsai_core.selection import choose_candidates, select


class MaskTrials(Sequence[Trial]):
    """Sub-models that lack candidates, numbered from 0.

    Attributes:
        candidates: per gate, the units that may go.
        masks: [M, F] bool, True where a candidate is absent.
    """

    def __init__(self, candidates: Sequence[Units], masks: NDArray[np.bool_]) -> None:
        self.candidates = candidates
        self.masks = masks

    def __len__(self) -> int:
        return len(self.masks)

    @overload
    def __getitem__(self, index: int) -> Trial: ...
    @overload
    def __getitem__(self, index: slice) -> "MaskTrials": ...
    def __getitem__(self, index: int | slice) -> "Trial | MaskTrials":
        if isinstance(index, slice):
            return MaskTrials(self.candidates, self.masks[index])
        return Trial(split(self.masks[index], self.candidates))


class RandomMasks:
    """See the module."""

    def __init__(self, pruning: Pruning) -> None:
        self._pruning = pruning
        self.prior = pruning.prior

    def rounds(self, goal: int, total: int) -> int:
        """See `Recipe.rounds`."""
        return math.ceil(goal / self._step(total))

    def propose(self, situation: Situation) -> MaskTrials:
        """See `Recipe.propose`: as many masks as asked for, each followed by its complement."""
        pruning = self._pruning
        candidates = choose_candidates(
            situation.shapes,
            situation.scores,
            self._budget(situation),
            layout=pruning.layout,
        )
        random = generator(pruning.seed, situation.round, "masks")
        masks = draw(candidates, situation.scores, pruning.masks_per_round, random)
        return MaskTrials(candidates, masks)

    def decide(
        self, situation: Situation, trials: Sequence[Trial], utilities: NDArray[np.float64]
    ) -> Decision:
        """See `Recipe.decide`: a unit matters as much as its absence lowers the utility."""
        assert isinstance(trials, MaskTrials)
        found = fit(trials.masks, utilities)
        ends = np.cumsum([len(units) for units in trials.candidates])[:-1]
        absent = select(
            situation.shapes,
            trials.candidates,
            np.split(-found.coefficients, ends),
            self._budget(situation),
            layout=self._pruning.layout,
        )
        regularisation = found.regularisation if math.isfinite(found.regularisation) else None
        notes = {
            "candidates": trials.masks.shape[1],
            "regularisation": regularisation,
            "leave_one_out_error": found.leave_one_out_error,
            "explained": found.explained,
        }
        damping = self._pruning.damping if self._pruning.refit else None
        return Decision(
            absent, cut=True, damping=damping, predicted=found.predicted.tolist(), notes=notes
        )

    def _budget(self, situation: Situation) -> int:
        return min(self._step(situation.total), situation.goal)

    def _step(self, total: int) -> int:
        return math.ceil(self._pruning.sparsity_per_round * total)
