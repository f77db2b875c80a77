"""Widths by the damage that is measured where they are; units by the prior.

The first round lets one gate at a time lose a part of its units, alone, in the dense model, and
plans half way between equal shares and what would do the least damage if damages added up; all the
way is too far, since they do not. Each further round changes one gate at a time, a little, at the
plan so far: a layer whose loss hurts more than others' gets some of its width back, at the cost of
those that hurt less. The experts of a layer count as one gate (`bonsai_core.recipes.pools`). Few
tokens mislead now and then, so the plans of all rounds are tried side by side, and the best one is
taken. The last round tries dampings for its repair, and cuts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from bonsai_core.config import Layout, Pruning
from bonsai_core.families import GateKind
from bonsai_core.gates import Units
from bonsai_core.recipe import Decision, Situation, Trial
from bonsai_core.recipes.pools import Pool, by_gate, pools_of
from bonsai_core.recipes.probes import DAMPINGS, losses_alone, splits, step
from bonsai_core.recipes.statistics_only import equal_shares, planned
from bonsai_core.selection import GateShape, removable

Floats = NDArray[np.float64]

POWERS = (1.5, 4.0)
"""Of the damage over the units gone, least and most: beyond them it is noise that speaks."""

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

HYSTERESIS = 1.25
"""Attention units and whole experts are coarse: they move where that gains clearly, by so much."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A change of one pool: how many units it lacks, instead of how many the plan takes."""

    pool: int
    count: int


class ProbeTrials(Sequence[Trial]):
    """The plan as it is, and then with one pool changed at a time."""

    def __init__(
        self,
        situation: Situation,
        pools: Sequence[Pool],
        probes: Sequence[Probe],
        damping: float | None,
    ) -> None:
        self._situation = situation
        self.pools = pools
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
            for gate, count in self.pools[probe.pool].counts(probe.count).items():
                weakest = np.argsort(self._situation.scores[gate], kind="stable")
                absent[gate] = np.sort(weakest[:count]).astype(np.int64)
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
            return [] if self._is_uniform else self._probe(situation, self._alone)
        if situation.round >= self._last:
            dampings = DAMPINGS if self._pruning.refit else [None]
            return [Trial(situation.plan, damping) for damping in dampings]
        if situation.round == self._last - 1 and not self._is_uniform:
            plans = [situation.plan, *reversed(situation.earlier)]
            return [Trial(plan, self._damping) for plan in plans]
        if self._is_uniform:
            return [Trial(plan, self._damping) for plan in self._splits(situation)]
        return self._probe(situation, self._beside)

    def decide(self, situation: Situation, trials: Sequence[Trial], utilities: Floats) -> Decision:
        """See `Recipe.decide`."""
        if situation.round == 1:
            plan = equal_shares(situation, self._pruning.layout)
            if not isinstance(trials, ProbeTrials):
                return self._plan(plan)
            least = self._planned(situation, trials.pools, _costs_alone(trials, utilities))
            half = _half_way(trials.pools, plan, least)
            plan = self._planned(situation, trials.pools, half)
            return self._plan(plan, expected_utility=_expected_alone(trials, utilities, plan))
        tried = float(utilities[0])
        if isinstance(trials, ProbeTrials):
            costs = _costs(trials, situation.plan, utilities)
            plan = self._planned(situation, trials.pools, costs)
            expected = _expected(trials, situation.plan, utilities, plan)
            return self._plan(plan, plan_utility=tried, expected_utility=expected)
        best = trials[int(np.argmax(utilities))]
        if situation.round < self._last:
            return self._plan(best.absent, **({} if self._is_uniform else {"plan_utility": tried}))
        return Decision(best.absent, cut=True, damping=best.damping)

    def _planned(
        self, situation: Situation, pools: Sequence[Pool], costs: Sequence[Floats]
    ) -> list[Units]:
        of_gates = by_gate(pools, costs, len(situation.shapes))
        return planned(situation, of_gates, self._pruning.layout)

    def _plan(self, absent: Sequence[Units], **notes: float) -> Decision:
        """A plan; `plan_utility`: what that of the round before it was found to be worth,
        `expected_utility`: what this one is worth if damages add up."""
        return Decision(absent, cut=False, damping=self._damping, notes=notes)

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
            min(removable(shape) for shape in situation.shapes if shape.kind is GateKind.ATTENTION)
            if GateKind.ATTENTION in kinds
            else 0
        )
        plans = {}
        for count in splits(most):
            costs = [_first(count, shape) for shape in situation.shapes]
            plan = planned(situation, costs, Layout.UNIFORM)
            plans[tuple(len(units) for units in plan)] = plan
        return list(plans.values())

    def _probe(
        self,
        situation: Situation,
        counts: Callable[[Pool, Sequence[Units]], Iterable[int]],
    ) -> ProbeTrials:
        pools = pools_of(situation)
        probes = [
            Probe(number, count)
            for number, pool in enumerate(pools)
            for count in counts(pool, situation.plan)
        ]
        return ProbeTrials(situation, pools, probes, self._damping)

    def _alone(self, pool: Pool, _plan: Sequence[Units]) -> list[int]:
        """How many units a pool loses alone: two numbers, or as many as it has to lose."""
        return losses_alone(pool.shape.units, pool.shape.block, pool.most)

    def _beside(self, pool: Pool, plan: Sequence[Units]) -> Iterator[int]:
        """How many units a pool lacks where it differs a little from the plan."""
        change, count = step(pool.shape.units, pool.shape.block), pool.gone(plan)
        more = count + change <= pool.most
        if more:
            yield count + change
        if count >= change and (pool.shape.kind is not GateKind.MLP or not more):
            yield count - change


def _first(count: int, shape: GateShape) -> Floats:
    """Costs by which `count` attention units go before all else, and the others after it."""
    ranks = np.arange(shape.units)
    if shape.kind is GateKind.ATTENTION:
        return np.where(ranks < count, 0.0, 3.0)
    return 1 + ranks / shape.units


def _costs_alone(trials: ProbeTrials, utilities: Floats) -> list[Floats]:
    """Per pool, what its weakest unit costs per parameter, the next, and so on; ascending, [U]."""
    damages, least = _damages_alone(trials, utilities)
    return [
        _power_law(pool.shape, of_pool, least)
        for pool, of_pool in zip(trials.pools, damages, strict=True)
    ]


def _damages_alone(trials: ProbeTrials, utilities: Floats) -> tuple[list[dict[int, float]], float]:
    """Per pool, the damage done when so many units are gone; and the least that counts as one."""
    damages: list[dict[int, float]] = [{} for _ in trials.pools]
    for probe, utility in zip(trials.probes, utilities[1:], strict=True):
        damages[probe.pool][probe.count] = float(utilities[0] - utility)
    usual = max((d for of_pool in damages for d in of_pool.values()), default=1.0)
    return damages, max(usual, TINY) * TINY


def _power_law(shape: GateShape, damages: Mapping[int, float], least: float) -> Floats:
    """Costs of a pool's units by rank, from the damage done when so many of them are gone."""
    ranks = np.arange(shape.units + 1, dtype=np.float64)
    if not damages:
        return np.full(shape.units, NEVER_GONE)
    damage = _damage(ranks, damages, least)
    costs = np.maximum.accumulate(np.diff(damage) / shape.price)
    if shape.kind is not GateKind.MLP:
        return costs * HYSTERESIS
    return np.where(ranks[1:] <= MOST_GONE * shape.units, costs, NEVER_GONE)


def _damage(gone: Floats, damages: Mapping[int, float], least: float) -> Floats:
    """The damage of so many units, by the power law through what was measured."""
    (few, first), (many, second) = min(damages.items()), max(damages.items())
    first, second = max(first, least), max(second, least)
    power = np.log(second / first) / np.log(many / few) if many > few else STEEPNESS
    damage: Floats = second * (gone / many) ** np.clip(power, *POWERS)
    return damage


def _expected_alone(trials: ProbeTrials, utilities: Floats, plan: Sequence[Units]) -> float:
    """The utility of a plan, if the damages that were measured alone add up."""
    damages, least = _damages_alone(trials, utilities)
    gone = [np.array([float(pool.gone(plan))]) for pool in trials.pools]
    lost = [
        float(_damage(units, of_pool, least)[0])
        for units, of_pool in zip(gone, damages, strict=True)
        if of_pool and units[0]
    ]
    return float(utilities[0]) - sum(lost)


def _expected(
    trials: ProbeTrials, old: Sequence[Units], utilities: Floats, new: Sequence[Units]
) -> float:
    """The utility of a new plan, if each unit's change is worth what was measured beside the old
    one, and changes add up."""
    expected = float(utilities[0])
    for number, pool in enumerate(trials.pools):
        count, change = pool.gone(old), pool.gone(new) - pool.gone(old)
        slopes = {
            probe.count > count: float(utility - utilities[0]) / (probe.count - count)
            for probe, utility in zip(trials.probes, utilities[1:], strict=True)
            if probe.pool == number
        }
        if change and slopes:
            expected += change * slopes.get(change > 0, next(iter(slopes.values())))
    return expected


def _half_way(
    pools: Sequence[Pool], equal: Sequence[Units], least: Sequence[Units]
) -> list[Floats]:
    """Costs that lead to widths between those of two plans; coarse units go as the second says."""
    costs = []
    for pool in pools:
        ranks = np.arange(1, pool.shape.units + 1, dtype=np.float64)
        if pool.shape.kind is GateKind.MLP:
            costs.append(ranks / max(1, (pool.gone(equal) + pool.gone(least)) / 2))
        else:
            costs.append(np.where(ranks <= pool.gone(least), NEVER_BACK, NEVER_GONE))
    return costs


def _costs(trials: ProbeTrials, plan: Sequence[Units], utilities: Floats) -> list[Floats]:
    """Per pool, what its weakest unit costs per parameter, the next, and so on; ascending, [U]."""
    measured: list[list[tuple[int, float]]] = [[] for _ in trials.pools]
    for probe, utility in zip(trials.probes, utilities[1:], strict=True):
        pool = trials.pools[probe.pool]
        price = pool.shape.price * (probe.count - pool.gone(plan))
        measured[probe.pool].append((probe.count, float(utilities[0] - utility) / price))
    channels = [
        cost
        for found, pool in zip(measured, trials.pools, strict=True)
        for _, cost in found
        if pool.shape.kind is not GateKind.ATTENTION
    ]
    # Noise may make a loss look like a gain, and there is always a scale.
    usual = max(float(np.median(channels)), TINY) if channels else TINY
    return [
        _curve(pool.shape, pool.gone(plan), [(count, cost / usual) for count, cost in found])
        for pool, found in zip(trials.pools, measured, strict=True)
    ]


def _curve(shape: GateShape, count: int, found: Sequence[tuple[int, float]]) -> Floats:
    """Costs of a pool's units by rank, from those that were measured beside `count`.

    Args:
        shape: of the pool.
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
