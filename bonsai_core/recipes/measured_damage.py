"""Widths by the damage that is measured where they are; units by the prior.

The first round lets one gate at a time lose a part of its units, alone, in the dense model, and
plans half way between equal shares and what would do the least damage if damages added up; all the
way is too far, since they do not. Each further round changes one gate at a time, a little, at the
plan so far: a layer whose loss hurts more than others' gets some of its width back, at the cost of
those that hurt less. What is measured on few tokens misleads now and then, so the plans of all
rounds are tried side by side, and the best one is taken. The last round tries dampings for its
repair, and cuts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from bonsai_core.config import Layout, Pruning
from bonsai_core.families import GateKind
from bonsai_core.gates import Units
from bonsai_core.recipe import Decision, Situation, Trial
from bonsai_core.recipes.statistics_only import equal_shares, planned
from bonsai_core.selection import GateShape, block_of, removable

Floats = NDArray[np.float64]

DAMPINGS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Tried in the last round."""

ALONE = (1 / 4, 3 / 5)
"""Shares of its units that a gate loses alone in the first round: two points of a power law."""

POWERS = (1.5, 4.0)
"""Of the damage over the units gone, least and most: beyond them it is noise that speaks."""

PROBE = 1 / 12
"""Share of an MLP's channels by which a trial differs from the plan."""

STEEPNESS = 3.0
"""How fast the cost of a gate's next unit grows with what is gone already, as a power: with s the
measured cost relative to the median, a width's loss changes by the factor s^(-1/STEEPNESS). What is
measured grows with a power of about 2; steps are shorter, since few tokens tell it."""

MOST_CHANGE = 1.4
"""A round changes the loss of a gate by this factor at most: what was measured is local."""

MOST_GONE = 5 / 6
"""Of a gate's channels, unless the target cannot be met otherwise."""

TINY = 1e-30
"""What channels usually cost where the measurements say that they cost nothing."""

NEVER_BACK, NEVER_GONE = 0.0, 1e30
"""Costs of units so far from the plan that nothing was measured about them: they stay as they are
unless the target cannot be met otherwise."""

SPLITS = 9
"""Plans tried at most where all layers get the same widths."""

HYSTERESIS = 1.25
"""Attention units and whole experts are coarse: they move where that gains clearly, by so much."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A change of one gate: how many units it lacks, instead of how many the plan takes."""

    gate: int
    count: int


class ProbeTrials(Sequence[Trial]):
    """The plan as it is, and then with one gate changed at a time."""

    def __init__(
        self, situation: Situation, probes: Sequence[Probe], damping: float | None
    ) -> None:
        self._situation = situation
        self.probes = probes
        self._damping = damping

    def __len__(self) -> int:
        return 1 + len(self.probes)

    @overload
    def __getitem__(self, index: int) -> Trial: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Trial]: ...
    def __getitem__(self, index: int | slice) -> Trial | Sequence[Trial]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        absent = list(self._situation.plan)
        if index:
            probe = self.probes[index - 1]
            weakest = np.argsort(self._situation.scores[probe.gate], kind="stable")
            absent[probe.gate] = np.sort(weakest[: probe.count]).astype(np.int64)
        return Trial(absent, self._damping)


class MeasuredDamage:
    """See the module. Without refit there is no damping to try, and masks alone are measured."""

    def __init__(self, pruning: Pruning) -> None:
        self._pruning = pruning
        self.prior = pruning.prior

    def rounds(self, goal: int, total: int) -> int:  # noqa: ARG002
        """See `Recipe.rounds`: the first plan, the improvements, the choice, the repair."""
        return self._last

    def propose(self, situation: Situation) -> Sequence[Trial]:
        """See `Recipe.propose`."""
        if situation.round == 1:
            alone = [] if self._is_uniform else self._alone(situation)
            return ProbeTrials(situation, alone, self._damping) if alone else []
        if situation.round >= self._last:
            dampings = DAMPINGS if self._pruning.refit else [None]
            return [Trial(situation.plan, damping) for damping in dampings]
        if situation.round == self._last - 1 and not self._is_uniform:
            plans = [situation.plan, *reversed(situation.earlier)]
            return [Trial(plan, self._damping) for plan in plans]
        if self._is_uniform:
            return [Trial(plan, self._damping) for plan in self._splits(situation)]
        return ProbeTrials(situation, self._probes(situation), self._damping)

    def decide(self, situation: Situation, trials: Sequence[Trial], utilities: Floats) -> Decision:
        """See `Recipe.decide`."""
        layout, align = self._pruning.layout, self._pruning.align
        if situation.round == 1:
            plan = equal_shares(situation, layout, align)
            if isinstance(trials, ProbeTrials):
                costs = _costs_alone(situation, trials.probes, utilities)
                least = planned(situation, costs, layout, align)
                plan = planned(situation, _half_way(situation, plan, least), layout, align)
            return self._plan(plan)
        if isinstance(trials, ProbeTrials):
            costs = _costs(situation, trials.probes, utilities)
            return self._plan(planned(situation, costs, layout, align))
        best = trials[int(np.argmax(utilities))]
        if situation.round < self._last:
            return self._plan(best.absent)
        return Decision(best.absent, cut=True, damping=best.damping)

    def _plan(self, absent: Sequence[Units]) -> Decision:
        return Decision(absent, cut=False, damping=self._damping)

    @property
    def _damping(self) -> float | None:
        return self._pruning.damping if self._pruning.refit else None

    @property
    def _is_uniform(self) -> bool:
        return self._pruning.layout is Layout.UNIFORM

    @property
    def _last(self) -> int:
        # Equal widths leave one thing to find: how attention and MLPs share.
        return 3 if self._is_uniform else 3 + self._pruning.improvements

    def _splits(self, situation: Situation) -> list[list[Units]]:
        """Plans of equal widths that differ in how many attention units go."""
        kinds = [shape.kind for shape in situation.shapes]
        most = (
            min(
                removable(shape, 1)
                for shape in situation.shapes
                if shape.kind is GateKind.ATTENTION
            )
            if GateKind.ATTENTION in kinds
            else 0
        )
        plans = {}
        for count in sorted({round(share * most) for share in np.linspace(0, 1, SPLITS)}):
            costs = [_first(count, shape) for shape in situation.shapes]
            plan = planned(situation, costs, Layout.UNIFORM, self._pruning.align)
            plans[tuple(len(units) for units in plan)] = plan
        return list(plans.values())

    def _alone(self, situation: Situation) -> list[Probe]:
        align = self._pruning.align
        return [
            Probe(gate, count)
            for gate, shape in enumerate(situation.shapes)
            for count in _counts_alone(shape, align)
        ]

    def _probes(self, situation: Situation) -> list[Probe]:
        align = self._pruning.align
        probes = []
        for gate, (shape, units) in enumerate(zip(situation.shapes, situation.plan, strict=True)):
            step, count = _step(shape, align), len(units)
            more, less = count + step <= removable(shape, align), count >= step
            if more:
                probes.append(Probe(gate, count + step))
            if less and (shape.kind is not GateKind.MLP or not more):
                probes.append(Probe(gate, count - step))
        return probes


def _first(count: int, shape: GateShape) -> Floats:
    """Costs by which `count` attention units go before all else, and the others after it."""
    ranks = np.arange(shape.units)
    if shape.kind is GateKind.ATTENTION:
        return np.where(ranks < count, 0.0, 3.0)
    return 1 + ranks / shape.units


def _counts_alone(shape: GateShape, align: int) -> list[int]:
    """How many units a gate loses alone: two numbers, or as many as it has to lose."""
    block = block_of(shape, align)
    few, many = (max(1, round(share * shape.units / block)) * block for share in ALONE)
    most = removable(shape, align)
    return sorted({count for count in (few, max(many, few + block)) if count <= most})


def _costs_alone(situation: Situation, probes: Sequence[Probe], utilities: Floats) -> list[Floats]:
    """Per gate, what its weakest unit costs per parameter, the next, and so on; ascending, [U]."""
    damages: list[dict[int, float]] = [{} for _ in situation.shapes]
    for probe, utility in zip(probes, utilities[1:], strict=True):
        damages[probe.gate][probe.count] = float(utilities[0] - utility)
    usual = max((d for of_gate in damages for d in of_gate.values()), default=1.0)
    return [
        _power_law(shape, of_gate, max(usual, TINY) * TINY)
        for shape, of_gate in zip(situation.shapes, damages, strict=True)
    ]


def _power_law(shape: GateShape, damages: Mapping[int, float], least: float) -> Floats:
    """Costs of a gate's units by rank, from the damage done when so many of them are gone."""
    ranks = np.arange(shape.units + 1, dtype=np.float64)
    if not damages:
        return np.full(shape.units, NEVER_GONE)
    (few, first), (many, second) = min(damages.items()), max(damages.items())
    first, second = max(first, least), max(second, least)
    power = np.log(second / first) / np.log(many / few) if many > few else STEEPNESS
    damage = second * (ranks / many) ** np.clip(power, *POWERS)
    costs = np.maximum.accumulate(np.diff(damage) / shape.price)
    if shape.kind is not GateKind.MLP:
        return costs * HYSTERESIS
    return np.where(ranks[1:] <= MOST_GONE * shape.units, costs, NEVER_GONE)


def _half_way(situation: Situation, equal: Sequence[Units], least: Sequence[Units]) -> list[Floats]:
    """Costs that lead to widths between those of two plans; coarse units go as the second says."""
    costs = []
    for shape, one, other in zip(situation.shapes, equal, least, strict=True):
        ranks = np.arange(1, shape.units + 1, dtype=np.float64)
        if shape.kind is GateKind.MLP:
            costs.append(ranks / max(1, (len(one) + len(other)) / 2))
        else:
            costs.append(np.where(ranks <= len(other), NEVER_BACK, NEVER_GONE))
    return costs


def _step(shape: GateShape, align: int) -> int:
    """Units by which a trial differs from the plan: whole blocks of the alignment."""
    block = block_of(shape, align)
    return max(1, round(PROBE * shape.units / block)) * block


def _costs(situation: Situation, probes: Sequence[Probe], utilities: Floats) -> list[Floats]:
    """Per gate, what its weakest unit costs per parameter, the next, and so on; ascending, [U]."""
    measured: list[list[tuple[int, float]]] = [[] for _ in situation.shapes]
    for probe, utility in zip(probes, utilities[1:], strict=True):
        count = len(situation.plan[probe.gate])
        price = situation.shapes[probe.gate].price * (probe.count - count)
        measured[probe.gate].append((probe.count, float(utilities[0] - utility) / price))
    channels = [
        cost
        for found, shape in zip(measured, situation.shapes, strict=True)
        for _, cost in found
        if shape.kind is not GateKind.ATTENTION
    ]
    # Noise may make a loss look like a gain, and there is always a scale.
    usual = max(float(np.median(channels)), TINY) if channels else TINY
    return [
        _curve(shape, len(plan), [(count, cost / usual) for count, cost in found])
        for shape, plan, found in zip(situation.shapes, situation.plan, measured, strict=True)
    ]


def _curve(shape: GateShape, count: int, found: Sequence[tuple[int, float]]) -> Floats:
    """Costs of a gate's units by rank, from those that were measured beside `count`.

    Args:
        shape: of the gate.
        count: units that the plan takes.
        found: other numbers of units, and what each of the units between costs per parameter,
            relative to what channels usually cost.
    """
    ranks = np.arange(1, shape.units + 1, dtype=np.float64)
    costs = np.where(ranks <= count, NEVER_BACK, NEVER_GONE)
    if shape.kind is not GateKind.MLP:
        for other, cost in found:
            between = (ranks > min(count, other)) & (ranks <= max(count, other))
            costs[between] = max(cost, 0) * (HYSTERESIS if other > count else 1 / HYSTERESIS)
        return np.maximum.accumulate(costs)
    for other, cost in found:
        centre = (count + other) / 2
        limited = min(max(cost, MOST_CHANGE**-STEEPNESS), MOST_CHANGE**STEEPNESS)
        most = min(max(centre, other) * MOST_CHANGE, max(count, MOST_GONE * shape.units))
        near = (ranks > centre / MOST_CHANGE) & (ranks <= most)
        costs[near] = limited * (ranks[near] / centre) ** STEEPNESS
    return np.maximum.accumulate(costs)
