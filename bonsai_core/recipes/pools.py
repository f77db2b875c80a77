"""Pools: what is tried as one. A gate, or the experts of a layer, which are too many to ask each.

Within a pool the prior alone says whose units go first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bonsai_core.gates import Units
from bonsai_core.recipe import Situation
from bonsai_core.selection import GateShape, removable, trimmed

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pool:
    """One gate, or several with one common order of their units.

    Attributes:
        shape: of all its gates together.
        most: units that may go at most.
        places: by gate, where its weakest unit comes in the pool's order, its next, and so on;
            from 1, ascending, [U] each.
    """

    shape: GateShape
    most: int
    places: dict[int, NDArray[np.int64]]

    def counts(self, count: int) -> dict[int, int]:
        """How many units each gate lacks when the pool lacks so many."""
        return {
            gate: int(np.searchsorted(places, count, side="right"))
            for gate, places in self.places.items()
        }

    def gone(self, plan: Sequence[Units]) -> int:
        """How many units a plan takes from it."""
        return sum(len(plan[gate]) for gate in self.places)


def pools_of(situation: Situation) -> list[Pool]:
    """The pools of all gates, in their order."""
    groups: dict[tuple[str, int], list[int]] = {}
    for gate, shape in enumerate(situation.shapes):
        key = ("gate", gate) if shape.group is None else ("group", shape.group)
        groups.setdefault(key, []).append(gate)
    return [_pool(situation, gates) for gates in groups.values()]


def by_gate(pools: Sequence[Pool], costs: Sequence[Floats], gates: int) -> list[Floats]:
    """Costs of each gate's units, the weakest first, from those of the pools; [U] each."""
    found: list[Floats] = [np.empty(0)] * gates
    for pool, of_pool in zip(pools, costs, strict=True):
        for gate, places in pool.places.items():
            found[gate] = of_pool[places - 1]
    return found


def _pool(situation: Situation, gates: Sequence[int]) -> Pool:
    shapes = [situation.shapes[gate] for gate in gates]
    whole = replace(shapes[0], units=sum(shape.units for shape in shapes))
    most = sum(removable(shape) for shape in shapes)
    if len(gates) == 1:
        return Pool(whole, most, {gates[0]: np.arange(1, whole.units + 1)})
    owners = np.repeat(np.arange(len(gates)), [shape.units for shape in shapes])
    keys = [_keys(situation.scores[gate], shape) for gate, shape in zip(gates, shapes, strict=True)]
    order = np.argsort(np.concatenate(keys), kind="stable")
    return Pool(
        whole, most, {gate: 1 + np.flatnonzero(owners[order] == n) for n, gate in enumerate(gates)}
    )


def _keys(scores: Floats, shape: GateShape) -> Floats:
    """Ascending: the scores, those of a block alike. What has to stay comes last."""
    block, last = shape.block, shape.units - 1
    ends = last - (last - np.arange(shape.units)) // block * block
    keys = np.sort(scores)[ends]
    keys[: trimmed(shape)] = -np.inf
    keys[removable(shape) :] = np.inf
    return keys
