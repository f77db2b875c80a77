"""A recipe answers two questions in every round: what shall we try, and what do we do now.

The loop, the ledger, resuming and sharing know nothing else of how a prune is decided. A round ends
in a plan: the units that shall be absent. A plan is either cut, or it is where the next round
starts from. The recipes that come with the project are in `bonsai_core.recipes`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bonsai_core.config import Prior
from bonsai_core.gates import Units
from bonsai_core.selection import GateShape


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a round's decisions depend on."""

    round: int
    """From 1."""
    shapes: Sequence[GateShape]
    """The gates as they are cut so far."""
    scores: Sequence[NDArray[np.float64]]
    """Prior of each gate's units; [U] each."""
    plan: Sequence[Units]
    """Per gate, the units that the rounds since the last cut have planned to remove."""
    goal: int
    """Parameters that still have to be cut to meet the target."""
    total: int
    """Non-embedding parameters of the dense model."""
    earlier: Sequence[Sequence[Units]] = ()
    """The plans before `plan`, since the last cut; the first one first."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A sub-model to evaluate.

    Attributes:
        absent: per gate, ascending positions of the units that it lacks.
        damping: the kept columns take over by least squares with this damping; None: they do not.
    """

    absent: Sequence[Units]
    damping: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """How a round ends.

    Attributes:
        absent: per gate, ascending positions of the units that go, those of the plan so far
            included if they shall go.
        cut: whether they go for good now; if not, this is the plan of the next round.
        damping: as of a trial.
        predicted: the utility of each trial as the others tell it, where the recipe fits a model
            to them; for the record.
        notes: what else the round found out, for the record.
    """

    absent: Sequence[Units]
    cut: bool
    damping: float | None = None
    predicted: Sequence[float] = ()
    notes: Mapping[str, float | None] = field(default_factory=dict)


class Recipe(Protocol):
    """How a prune is decided. The same answers for the same situation, always."""

    prior: Prior
    """How units are scored, from one pass over the calibration text, after every cut."""

    def rounds(self, goal: int, total: int) -> int:
        """How many rounds it takes at most to remove `goal` of `total` parameters."""
        ...

    def propose(self, situation: Situation) -> Sequence[Trial]:
        """What to try next; may be nothing. Trials that change the same layers belong together."""
        ...

    def decide(
        self, situation: Situation, trials: Sequence[Trial], utilities: NDArray[np.float64]
    ) -> Decision:
        """What to do, now that every trial's utility is known; [len(trials)], higher is better."""
        ...


def nothing(shapes: Sequence[GateShape]) -> list[Units]:
    """The plan that removes no unit."""
    return [np.empty(0, dtype=np.int64) for _ in shapes]
