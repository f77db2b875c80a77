"""A recipe answers two questions in every round: what shall we try, and what do we do now.

The loop, the ledger, resuming and sharing know nothing else of how a prune is decided. `Bonsai` is
the paper's recipe (arXiv 2402.05406, algorithm 1): random masks with complements, and a regression.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bonsai_core.config import Pruning
from bonsai_core.gates import Units
from bonsai_core.importance import Fit, fit
from bonsai_core.masks import draw, split
from bonsai_core.seeds import generator
from bonsai_core.selection import GateShape, choose_candidates, select


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a round's decisions depend on."""

    round: int
    shapes: Sequence[GateShape]
    scores: Sequence[NDArray[np.float64]]
    """Prior of each gate's units."""
    budget: int
    """Parameters to remove in this round."""


@dataclass(frozen=True, slots=True)
class Trials:
    """Sub-models to evaluate in one round, numbered from 0."""

    candidates: Sequence[Units]
    masks: NDArray[np.bool_]
    """[M, F], True where a candidate is absent."""

    def __len__(self) -> int:
        return len(self.masks)

    def absent(self, trial: int) -> list[Units]:
        """Per gate, the units that one sub-model lacks."""
        return split(self.masks[trial], self.candidates)


@dataclass(frozen=True, slots=True)
class Decision:
    """What goes in this round, per gate, and the fit that said so."""

    removed: Sequence[Units]
    fit: Fit


class Recipe(Protocol):
    """How a prune is decided."""

    def propose(self, situation: Situation) -> Trials:
        """What to try next; the same answer for the same situation."""
        ...

    def decide(
        self, situation: Situation, trials: Trials, utilities: NDArray[np.float64]
    ) -> Decision:
        """What to do, now that every trial's utility is known; [M]."""
        ...


class Bonsai:
    """The paper's recipe."""

    def __init__(self, pruning: Pruning) -> None:
        self._pruning = pruning

    def propose(self, situation: Situation) -> Trials:
        """See `Recipe.propose`."""
        pruning = self._pruning
        candidates = choose_candidates(
            situation.shapes,
            situation.scores,
            situation.budget,
            layout=pruning.layout,
            align=pruning.align,
        )
        random = generator(pruning.seed, situation.round, "masks")
        masks = draw(candidates, situation.scores, pruning.masks_per_round, random)
        return Trials(candidates, masks)

    def decide(
        self, situation: Situation, trials: Trials, utilities: NDArray[np.float64]
    ) -> Decision:
        """See `Recipe.decide`: a unit matters as much as its absence lowers the utility."""
        found = fit(trials.masks, utilities)
        ends = np.cumsum([len(units) for units in trials.candidates])[:-1]
        removed = select(
            situation.shapes,
            trials.candidates,
            np.split(-found.coefficients, ends),
            situation.budget,
            layout=self._pruning.layout,
            align=self._pruning.align,
        )
        return Decision(removed, found)
