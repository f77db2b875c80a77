"""Which units may go in a round, and which do: pure functions on scores, prices and counts.

A *lane* is a sequence of steps that can only be taken in order; a *step* removes some units at
once. In the layout `per_layer` every gate is a lane of its own, and a step is one block of its
units. In `uniform` all gates of a kind are one lane, and a step takes the same number of units
from each of them, so that the widths stay equal.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bonsai_core.config import Layout
from bonsai_core.families import GateKind
from bonsai_core.gates import Gate, Units

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GateShape:
    """What selection needs to know of a gate: kind, units still there, price of one."""

    kind: GateKind
    units: int
    price: int
    group: int | None = None
    """Gates with the same number are tried together: the experts of a layer. None: alone."""
    block: int = 1
    """Units that go at once (`bonsai_core.families.block_of`)."""


def shapes_of(gates: Sequence[Gate], blocks: Iterable[int] | None = None) -> list[GateShape]:
    """The shapes of live gates as they are now.

    Args:
        gates: as they are cut so far.
        blocks: units of each that go at once; None: one.
    """
    return [
        GateShape(gate.kind, gate.units, gate.price, gate.layer if gate.routed else None, block)
        for gate, block in zip(gates, blocks or [1] * len(gates), strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Step:
    """Units that go together, their price in parameters and their summed importance."""

    units: tuple[tuple[int, Units], ...]
    price: int
    importance: float
    trims: bool = False
    """Smaller than the others of its lane: it brings the width to a multiple of the block."""


def removable(shape: GateShape) -> int:
    """Units that may go at most: the gate keeps one block, and ends on a multiple of it."""
    return max(0, shape.units - shape.block)


def trimmed(shape: GateShape) -> int:
    """Units that go in any case, because the width ends on a multiple of the block."""
    return shape.units % shape.block


def choose_candidates(
    shapes: Sequence[GateShape],
    scores: Sequence[Floats],
    budget: int,
    *,
    layout: Layout,
) -> list[Units]:
    """The weakest units of each gate, twice as many as the budget takes; the others are safe.

    With p the budget's share of what is still there, the weakest 2p of the gates of each kind are
    candidates (arXiv 2402.05406, section 3.1). A gate with few units gets a whole number of them:
    fractions are summed over the gates of a kind and given to those whose next unit is weakest
    relative to its gate. The share grows where needed, until the budget can be met.

    Args:
        shapes: the gates.
        scores: prior of each gate's units.
        budget: parameters to remove.
        layout: of the result.

    Returns:
        Per gate, ascending positions; empty where nothing may go.
    """
    alive = sum(shape.units * shape.price for shape in shapes)
    share = min(1.0, 2 * budget / alive)
    while True:
        counts = _counts(shapes, scores, share, layout)
        price = sum(c * s.price for c, s in zip(counts, shapes, strict=True))
        if price >= budget or share >= 1.0:
            break
        share = min(1.0, share * 1.25)
    return [
        np.sort(np.argsort(score, kind="stable")[:count]).astype(np.int64)
        for score, count in zip(scores, counts, strict=True)
    ]


def _counts(
    shapes: Sequence[GateShape],
    scores: Sequence[Floats],
    share: float,
    layout: Layout,
) -> list[int]:
    counts = [0] * len(shapes)
    for kind in GateKind:
        gates = [g for g, shape in enumerate(shapes) if shape.kind is kind]
        if not gates:
            continue
        exact = [share * shapes[g].units for g in gates]
        if layout is Layout.UNIFORM:
            # A step takes units from every gate, so all of them offer the same number.
            whole = [round(min(exact))] * len(gates)
        else:
            limits = [removable(shapes[g]) for g in gates]
            whole = _rounded(gates, exact, scores, limits)
        for gate, count in zip(gates, whole, strict=True):
            shape = shapes[gate]
            counts[gate] = _aligned(count, shape)
    return counts


def _rounded(
    gates: list[int], exact: list[float], scores: Sequence[Floats], limits: list[int]
) -> list[int]:
    """Whole numbers with the sum of `exact`; spare ones go where the next unit is weakest."""
    whole = [int(value) for value in exact]
    spare = round(sum(exact)) - sum(whole)
    relative = []
    for position, gate in enumerate(gates):
        ordered = np.sort(scores[gate])
        mean = ordered.mean()
        if whole[position] < limits[position]:
            relative.append((ordered[whole[position]] / mean if mean else 0.0, position))
    for _, position in sorted(relative)[:spare]:
        whole[position] += 1
    return whole


def _aligned(count: int, shape: GateShape) -> int:
    """`count` raised to whole blocks, so that the width can end on a multiple of the block."""
    block, odd = shape.block, trimmed(shape)
    return min(removable(shape), odd + -(-max(0, count - odd) // block) * block)


def select(
    shapes: Sequence[GateShape],
    candidates: Sequence[Units],
    importance: Sequence[Floats],
    budget: int,
    *,
    layout: Layout,
) -> list[Units]:
    """The least important candidates per parameter, until the budget is met.

    Args:
        shapes: the gates.
        candidates: per gate, from `choose_candidates`.
        importance: per gate, of its candidates, in their order.
        budget: parameters to remove.
        layout: of the result.

    Returns:
        Per gate, ascending positions of the units that go. Widths that are no multiple of the
        block are trimmed whatever it costs; beyond that the units cost at least the budget and
        exceed it by less than the cheapest step left, unless the candidates cost less in all.
    """
    lanes = _lanes(shapes, candidates, importance, layout)
    chosen = [lane.pop(0) for lane in lanes if lane and lane[0].trims]
    heads = [(_rate(lane[0]), number, 0) for number, lane in enumerate(lanes) if lane]
    heapq.heapify(heads)
    too_large: list[Step] = []
    left = budget - sum(step.price for step in chosen)
    while heads and left > 0:
        _, number, place = heapq.heappop(heads)
        step = lanes[number][place]
        if step.price > left:
            too_large.append(step)  # closes its lane: what follows costs as much or more
            continue
        chosen.append(step)
        left -= step.price
        if place + 1 < len(lanes[number]):
            heapq.heappush(heads, (_rate(lanes[number][place + 1]), number, place + 1))
    if left > 0 and too_large:
        chosen.append(min(too_large, key=lambda step: (step.price, _rate(step))))
    return _by_gate(chosen, len(shapes))


def _rate(step: Step) -> float:
    """Importance per parameter."""
    return step.importance / step.price


def _by_gate(steps: Sequence[Step], gates: int) -> list[Units]:
    parts: list[list[Units]] = [[np.empty(0, dtype=np.int64)] for _ in range(gates)]
    for step in steps:
        for gate, units in step.units:
            parts[gate].append(units)
    return [np.sort(np.concatenate(part)) for part in parts]


def _lanes(
    shapes: Sequence[GateShape],
    candidates: Sequence[Units],
    importance: Sequence[Floats],
    layout: Layout,
) -> list[list[Step]]:
    lanes = [
        _lane(gate, shape, candidates[gate], importance[gate]) for gate, shape in enumerate(shapes)
    ]
    if layout is Layout.PER_LAYER:
        return lanes
    merged = []
    for kind in GateKind:
        of_kind = [lanes[g] for g, shape in enumerate(shapes) if shape.kind is kind]
        merged.append([_together(steps) for steps in zip(*of_kind, strict=False)])
    return merged


def _lane(gate: int, shape: GateShape, units: Units, importance: Floats) -> list[Step]:
    """The candidates of one gate by importance, in steps that end on multiples of the block."""
    order = np.argsort(importance, kind="stable")[: removable(shape)]
    block = shape.block
    steps, start = [], 0
    while start < len(order):
        size = (shape.units - start) % block or block
        part = order[start : start + size]
        if len(part) < size:
            break  # not a whole block: the width would end between two multiples
        steps.append(
            Step(
                ((gate, units[part]),),
                size * shape.price,
                float(importance[part].sum()),
                trims=size < block,
            )
        )
        start += size
    return steps


def _together(steps: Sequence[Step]) -> Step:
    return Step(
        tuple(part for step in steps for part in step.units),
        sum(step.price for step in steps),
        sum(step.importance for step in steps),
        trims=any(step.trims for step in steps),
    )
