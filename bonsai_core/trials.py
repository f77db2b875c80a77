"""Trying sub-models on a live model: the plan that is in place, and small changes of it."""

from collections.abc import Iterator, Mapping, Sequence
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


class Bench:
    """Where trials are measured. A plan is in place; a trial differs from it while it is tried.

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
        self._place: list[tuple[Units, float | None]]
        self.moments: SecondMoments | None
        self.clear()

    def clear(self) -> None:
        """Forget the plan: the model was cut, and is what its weights say."""
        self._place = [(np.empty(0, dtype=np.int64), None) for _ in self._gates]
        self.moments = None
        self._blocks.forget()

    def put_in_place(self, trial: Trial) -> None:
        """Make the model lack these units until `clear`; trials are then changes of this."""
        changed = self._changed(trial)
        self._put({number: (trial.absent[number], trial.damping) for number in changed})

    def measure(self, trial: Trial, go_on: GoOn = regardless) -> float:
        """The utility of a sub-model; the plan stays in place."""
        if trial.damping is None and not self._planned():
            with applied(self._gates, trial.absent):
                return self._mixture.measure(go_on)
        changed = self._changed(trial)
        if not changed:
            return self._mixture.measure(go_on)
        layers = {self._gates[number].layer for number in changed}
        if len(layers) > SWAPPED_AT_MOST:
            return self._measure_in_place(changed, trial, go_on)
        # What comes before the first change is run once for all trials that leave it alone.
        self._blocks.advance(min(layers), go_on)
        with self._swapped(changed, trial):
            return self._mixture.measure(go_on, forward=self._blocks.forward)

    def _measure_in_place(self, changed: Sequence[int], trial: Trial, go_on: GoOn) -> float:
        """Without a second copy of the projections, which swapping would hold."""
        before = {number: self._place[number] for number in changed}
        try:
            self.put_in_place(trial)
            return self._mixture.measure(go_on)
        finally:
            self._put(before)

    @torch.inference_mode()
    def _put(self, places: Mapping[int, tuple[Units, float | None]]) -> None:
        for number, wanted in places.items():
            self._gates[number].output.weight.data.copy_(self._weight(number, *wanted))
            self._place[number] = wanted
        if places:
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

    def _planned(self) -> bool:
        return any(len(units) for units, _ in self._place)

    def _changed(self, trial: Trial) -> list[int]:
        return [
            number
            for number, ((units, damping), wanted) in enumerate(
                zip(self._place, trial.absent, strict=True)
            )
            if not np.array_equal(units, wanted) or (len(wanted) and damping != trial.damping)
        ]

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


def _without(weight: Tensor, gone: Tensor) -> Tensor:
    return weight[:, ~gone.to(weight.device)].contiguous()
