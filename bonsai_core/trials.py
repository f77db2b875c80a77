"""Trying sub-models on a live model: small changes of a plan beside it, large ones in its place."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from bonsai_core.blocks import Blocks
from bonsai_core.events import GoOn, regardless
from bonsai_core.gates import Gate, Units
from bonsai_core.masks import applied
from bonsai_core.recipe import Trial
from bonsai_core.refit import repaired
from bonsai_core.second_moments import SecondMoments
from bonsai_core.utilities.mixture import Mixture

SWAPPED_AT_MOST = 4
"""Layers whose projections a trial may hold twice; one that changes more takes the place."""

Places = list[tuple[Units, float | None]]
"""By gate: the units that it lacks, and the damping of its repair."""


class Bench:
    """Where trials are measured: they are small changes of a plan, or plans of their own.

    With repair, a gate that lacks units has its projection replaced by one that is zero in their
    columns and refitted in the others; the dense one is kept with the second moments.

    Args:
        gates: of the live model.
        blocks: its layers, over the sequences that trials are measured on.
        mixture: what a trial is worth.

    Attributes:
        moments: of the model as it is cut, taken with nothing in place; needed for repairs and for
            putting anything in place.
    """

    def __init__(self, gates: Sequence[Gate], blocks: Blocks, mixture: Mixture) -> None:
        self._gates = gates
        self._blocks = blocks
        self._mixture = mixture
        self._plan: Places
        self._place: Places
        self.moments: SecondMoments | None
        self.clear()

    def clear(self) -> None:
        """Forget the plan: the model was cut, and is what its weights say."""
        self._plan = [(np.empty(0, dtype=np.int64), None) for _ in self._gates]
        self._place = list(self._plan)
        self.moments = None
        self._blocks.forget()

    def plan(self, trial: Trial) -> None:
        """From now on until `clear`, trials are changes of this; it moves when it is needed."""
        self._plan = _places(trial)

    def put_in_place(self, trial: Trial) -> None:
        """Plan it, and make the model lack these units."""
        self.plan(trial)
        self.settle()

    def settle(self) -> None:
        """Have the plan in place, whatever was measured last."""
        self._put(self._plan)

    def measure(self, trial: Trial, go_on: GoOn = regardless) -> float:
        """The utility of a sub-model; one that is far from the plan stays in its place."""
        if trial.damping is None and not any(len(units) for units, _ in self._plan):
            self.settle()
            with applied(self._gates, trial.absent):
                return self._mixture.measure(go_on)
        wanted = _places(trial)
        changed = _differing(self._plan, wanted)
        layers = {self._gates[number].layer for number in changed}
        if len(layers) > SWAPPED_AT_MOST:
            # Swapping would hold a second copy of the projections. The next trial may be as far
            # from the plan, so going back waits until it is known.
            self._put(wanted)
            return self._mixture.measure(go_on)
        self.settle()
        if not changed:
            return self._mixture.measure(go_on)
        # What comes before the first change is run once for all trials that leave it alone.
        self._blocks.advance(min(layers), go_on)
        with self._swapped(changed, trial):
            return self._mixture.measure(go_on, forward=self._blocks.forward)

    def refresh(self, go_on: GoOn = regardless) -> None:
        """Weights have changed that no trial did: what is kept before the last layer is theirs."""
        self._blocks.forget()
        self._blocks.advance(self._gates[-1].layer, go_on)

    def measure_the_end(self, go_on: GoOn = regardless) -> float:
        """The utility of the model as it is, if nothing before its last layer has changed since
        `refresh`."""
        return self._mixture.measure(go_on, forward=self._blocks.forward)

    @torch.inference_mode()
    def _put(self, wanted: Places) -> None:
        changed = _differing(self._place, wanted)
        for number in changed:
            self._gates[number].output.weight.data.copy_(self._weight(number, *wanted[number]))
            self._place[number] = wanted[number]
        if changed:
            self._blocks.forget()

    def weights(self) -> dict[str, Tensor]:
        """The projections in place, without the columns that go, by gate; none without repair."""
        if all(damping is None for _, damping in self._place):
            return {}
        return {
            gate.name: _without(gate.output.weight, gate.gone(units))
            for gate, (units, _) in zip(self._gates, self._place, strict=True)
            if not gate.weightless
        }

    @contextmanager
    def _swapped(self, changed: Sequence[int], trial: Trial) -> Iterator[None]:
        before = {}
        try:
            for number in changed:
                output: nn.Linear = self._gates[number].output
                new = self._weight(number, trial.absent[number], trial.damping)
                before[number] = output.weight.data
                output.weight.data = new.to(output.weight.device)
            yield
        finally:
            for number, weight in before.items():
                self._gates[number].output.weight.data = weight

    @torch.inference_mode()
    def _weight(self, number: int, units: Units, damping: float | None) -> Tensor:
        """A gate's projection without units, zero in their columns; [D, C]."""
        assert self.moments is not None, "a plan needs the dense projections"
        gate = self._gates[number]
        dense = self.moments.weight(gate)
        if not len(units):
            return dense
        gone = gate.gone(units).to(dense.device)
        if damping is None or gate.weightless:
            return dense.masked_fill(gone, 0)
        return repaired(dense, self.moments.of(gate), gone, damping)


def _places(trial: Trial) -> Places:
    return [(units, trial.damping) for units in trial.absent]


def _differing(some: Places, others: Places) -> list[int]:
    """The gates that are not the same; the damping matters where units are gone."""
    return [
        number
        for number, ((units, damping), (wanted, other)) in enumerate(zip(some, others, strict=True))
        if not np.array_equal(units, wanted) or (len(wanted) and damping != other)
    ]


def _without(weight: Tensor, gone: Tensor) -> Tensor:
    return weight[:, ~gone.to(weight.device)].contiguous()
