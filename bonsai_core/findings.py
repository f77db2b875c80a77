"""What a run has measured for one of its targets and need not measure again for the next.

Each target is pruned to from the dense model. As long as the same model is in place, with the same
plan, its prior is the same, and the same trial is worth the same.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bonsai_core.batch import Batch
from bonsai_core.gates import Units
from bonsai_core.ledger import RoundRecord, Tensors
from bonsai_core.recipe import Trial


@dataclass(frozen=True, slots=True)
class Dense:
    """Of the dense model.

    Attributes:
        batch: the token sequences of the run.
        perplexity: on the given text among the sequences of trials.
        utilities: by title.
    """

    batch: Batch
    perplexity: float
    utilities: dict[str, float]


class State:
    """Which model is in place: told by all that was cut, in order, and by the plan since."""

    def __init__(self) -> None:
        self._cuts = hashlib.sha256()

    def cut(self, record: RoundRecord) -> None:
        """A round has cut."""
        said = record.model_dump_json(include={"removed", "damping"})
        self._cuts.update(said.encode())

    def with_plan(self, plan: Sequence[Units], damping: float | None) -> bytes:
        """A name of the model with a plan, or with the change of a trial."""
        digest = self._cuts.copy()
        for units in plan:
            digest.update(len(units).to_bytes(8, "little") + units.tobytes())
        digest.update(repr(damping).encode())
        return digest.digest()


@dataclass(slots=True)
class Findings:
    """Measured so far, in this process or before, for any of the targets."""

    dense: Dense | None = None
    priors: dict[bytes, Tensors] = field(default_factory=dict)
    _utilities: dict[tuple[bytes, bytes], float] = field(default_factory=dict)

    def utility(self, place: bytes, changed: bytes) -> float | None:
        """Of a trial, by the names of the model in place and of the changed one; None: unknown."""
        return self._utilities.get((place, changed))

    def keep(
        self,
        state: State,
        place: bytes,
        trials: Sequence[Trial],
        utilities: Mapping[int, float],
    ) -> None:
        """Keep the utilities of trials, by their place in `trials`."""
        for index, utility in utilities.items():
            trial = trials[index]
            changed = state.with_plan(trial.absent, trial.damping)
            self._utilities[place, changed] = utility
