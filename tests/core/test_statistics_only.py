"""Without trials, every layer gives the same share, its weakest units first, and no more."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from bonsai_core.config import Layout, Pruning
from bonsai_core.families import GateKind
from bonsai_core.gates import Units
from bonsai_core.recipe import Situation, nothing
from bonsai_core.recipes.statistics_only import StatisticsOnly, planned
from bonsai_core.selection import GateShape

ATTENTION, MLP = 500, 100


def shapes_in_blocks(align: int) -> list[GateShape]:
    mlp = GateShape(GateKind.MLP, 40, MLP, block=align)
    return [GateShape(GateKind.ATTENTION, 4, ATTENTION), mlp] * 3


SHAPES = shapes_in_blocks(1)
OF_MLPS = 3 * 40 * MLP


def situation(goal: int, shapes: Sequence[GateShape] = SHAPES, seed: int = 0) -> Situation:
    random = np.random.default_rng(seed)
    scores = [random.permutation(shape.units).astype(np.float64) for shape in shapes]
    total = sum(shape.units * shape.price for shape in shapes)
    return Situation(
        round=1, shapes=shapes, scores=scores, plan=nothing(shapes), goal=goal, total=total
    )


def plan(asked: Situation, **settings: Any) -> list[Units]:
    recipe = StatisticsOnly(Pruning(preset="statistics", **settings))
    assert recipe.rounds(asked.goal, asked.total) == 1
    trials = recipe.propose(asked)
    assert len(trials) == 0
    decision = recipe.decide(asked, trials, np.empty(0))
    assert decision.cut
    return list(decision.absent)


def gone(absent: Sequence[Units], shapes: Sequence[GateShape] = SHAPES) -> int:
    return sum(len(units) * shape.price for units, shape in zip(absent, shapes, strict=True))


def counts(absent: Sequence[Units], kind: GateKind) -> list[int]:
    return [len(u) for u, shape in zip(absent, SHAPES, strict=True) if shape.kind is kind]


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("align", [1, 4])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.7, 0.8])
def test_the_goal_is_met_and_passed_by_less_than_one_step(
    layout: Layout, align: int, share: float
) -> None:
    asked = situation(round(share * 18_000), shapes_in_blocks(align))
    absent = plan(asked, layout=layout)
    gates = 3 if layout is Layout.UNIFORM else 1
    assert asked.goal <= gone(absent) < asked.goal + gates * max(ATTENTION, align * MLP)
    assert all(count % align == 0 for count in counts(absent, GateKind.MLP))
    if layout is Layout.UNIFORM:
        assert all(len(set(counts(absent, kind))) <= 1 for kind in GateKind)


@pytest.mark.parametrize("align", [1, 4])
def test_the_weakest_units_of_a_gate_go(align: int) -> None:
    asked = situation(9000, shapes_in_blocks(align))
    for units, scores in zip(plan(asked), asked.scores, strict=True):
        assert (np.sort(scores[units]) == np.arange(len(units))).all()
        assert (np.sort(units) == units).all()


def test_channels_give_first_and_heads_once_two_thirds_of_them_have_gone() -> None:
    for share in (0.1, 0.5, 0.66):
        absent = plan(situation(round(share * OF_MLPS)))
        assert counts(absent, GateKind.ATTENTION) == [0, 0, 0]
        widths = counts(absent, GateKind.MLP)
        assert max(widths) - min(widths) <= 1
        assert widths == pytest.approx([share * 40] * 3, abs=1)
    absent = plan(situation(round(0.9 * OF_MLPS)))
    assert min(counts(absent, GateKind.ATTENTION)) > 0
    assert max(counts(absent, GateKind.MLP)) < 0.9 * 40


def test_a_wide_layer_gives_the_same_share_as_a_narrow_one() -> None:
    shapes = [GateShape(GateKind.MLP, units, MLP) for units in (20, 40, 100)]
    absent = plan(situation(8000, shapes))
    assert [len(units) for units in absent] == [10, 20, 50]


def test_the_result_is_repaired_where_that_is_asked_for() -> None:
    for refit, expected in ((True, 0.02), (False, None)):
        recipe = StatisticsOnly(Pruning(preset="statistics", refit=refit, damping=0.02))
        assert recipe.decide(situation(500), [], np.empty(0)).damping == expected


@pytest.mark.parametrize("seed", range(5))
def test_a_plan_takes_the_cheapest_units_of_all_gates(seed: int) -> None:
    random = np.random.default_rng(seed)
    shapes = [GateShape(GateKind.MLP, units, MLP) for units in (30, 40, 50)]
    costs = [np.sort(random.random(shape.units)) for shape in shapes]
    absent = planned(situation(4500, shapes, seed), costs, Layout.PER_LAYER)
    # All cost as many parameters, so the cheapest 45 are the plan.
    limit = np.sort(np.concatenate(costs))[45]
    assert [len(units) for units in absent] == [(cost < limit).sum() for cost in costs]


def test_equal_costs_leave_the_order_to_the_scores() -> None:
    asked = situation(500, SHAPES[1:2])
    (units,) = planned(asked, [np.zeros(40)], Layout.PER_LAYER)
    assert sorted(asked.scores[0][units]) == [0, 1, 2, 3, 4]
