"""Where a baseline removes: the same share from every layer, or the lowest scores of all.

Both meet the target to within half a channel, so that methods differ in what goes and not in how
much. Every gate keeps a unit.
"""

from collections.abc import Sequence

import numpy as np

from benchmarks.unit_scores import Scores
from bonsai_core.families import GateKind
from bonsai_core.gates import Units
from bonsai_core.selection import GateShape


def uniform_counts(
    shapes: Sequence[GateShape], goal: float, share: float, *, attention: bool
) -> list[int]:
    """How many units each gate loses when all layers lose the same.

    Of all attention units the rounded `share` goes: as many from each layer as can be had by
    whole division, and the rest one each from evenly spread layers. Channels make up what is left
    of the goal in the same way. So in a model with three groups per layer and 20 % to remove,
    three layers in five lose a group, and all lose the same number of channels, give or take one.

    Args:
        shapes: the gates; those of one kind have equal sizes.
        goal: parameters to remove.
        share: of the attention units to remove.
        attention: False to leave attention whole.

    Raises:
        ValueError: the channels do not suffice.
    """
    counts = [0] * len(shapes)
    left = goal
    for kind in (GateKind.ATTENTION, GateKind.MLP):
        gates = [number for number, shape in enumerate(shapes) if shape.kind is kind]
        price = shapes[gates[0]].price
        most = sum(shapes[gate].units - 1 for gate in gates)
        if kind is GateKind.MLP:
            wish = max(0, round(left / price))
            if wish > most:
                raise ValueError(f"{wish} channels are to go, and at most {most} can")
        else:
            wish = min(most, round(share * sum(shapes[gate].units for gate in gates)))
            wish = wish if attention else 0
        for gate, count in zip(gates, _dealt(wish, len(gates)), strict=True):
            counts[gate] = count
        left -= wish * price
    return counts


def _dealt(count: int, gates: int) -> list[int]:
    """`count` over so many gates: equal shares, and one more in evenly spread gates."""
    equal, spare = divmod(count, gates)
    counts = np.full(gates, equal)
    counts[((np.arange(spare) + 0.5) * gates / max(spare, 1)).astype(np.int64)] += 1
    return [int(value) for value in counts]


def lowest(scores: Scores, count: int) -> Units:
    """The positions of the lowest scores, ascending."""
    return np.sort(np.argsort(scores, kind="stable")[:count]).astype(np.int64)


def lowest_of_all(
    shapes: Sequence[GateShape], scores: Sequence[Scores], goal: float
) -> list[Units]:
    """The units with the lowest scores of all gates together, until the goal is met.

    A unit that costs more than what is left, or is the last of its gate, is passed over.
    """
    numbers = np.repeat(np.arange(len(shapes)), [shape.units for shape in shapes])
    units = np.concatenate([np.arange(shape.units) for shape in shapes])
    remaining = [shape.units for shape in shapes]
    smallest = min(shape.price for shape in shapes)
    chosen: list[list[int]] = [[] for _ in shapes]
    left = goal
    for place in np.argsort(np.concatenate(scores), kind="stable"):
        if left < smallest / 2:
            break
        gate = int(numbers[place])
        if remaining[gate] == 1 or shapes[gate].price > left + smallest / 2:
            continue
        chosen[gate].append(int(units[place]))
        remaining[gate] -= 1
        left -= shapes[gate].price
    if left >= smallest / 2:
        raise ValueError(f"{left:.0f} parameters more are to go, and no unit is left")
    return [np.sort(np.array(part, dtype=np.int64)) for part in chosen]
