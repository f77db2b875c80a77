"""Candidates are the weakest of each gate; what goes meets the budget and hardly more."""

from collections.abc import Sequence

import numpy as np
import pytest

from bonsai_core.config import Layout
from bonsai_core.families import GateKind
from bonsai_core.selection import (
    GateShape,
    choose_candidates,
    removable,
    select,
    trimmed,
)

ATTENTION_PRICE, MLP_PRICE = 900, 100
LAYERS = 4
LAYOUTS = [Layout.PER_LAYER, Layout.UNIFORM]


def model(groups: int = 4, channels: int = 64, align: int = 1) -> list[GateShape]:
    layer = [
        GateShape(GateKind.ATTENTION, groups, ATTENTION_PRICE),
        GateShape(GateKind.MLP, channels, MLP_PRICE, block=align),
    ]
    return layer * LAYERS


def random_scores(shapes: Sequence[GateShape], seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.random(shape.units) for shape in shapes]


def cost(shapes: Sequence[GateShape], units: Sequence[np.ndarray]) -> int:
    return sum(len(u) * shape.price for u, shape in zip(units, shapes, strict=True))


def kept(shapes: Sequence[GateShape], removed: Sequence[np.ndarray]) -> list[int]:
    return [shape.units - len(units) for shape, units in zip(shapes, removed, strict=True)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("align", [1, 8])
@pytest.mark.parametrize("share", [0.01, 0.05, 0.2, 0.6])
@pytest.mark.parametrize("seed", range(3))
def test_candidates_are_the_weakest_of_each_gate_and_enough(
    layout: Layout, align: int, share: float, seed: int
) -> None:
    shapes = model(align=align)
    budget = int(share * sum(shape.units * shape.price for shape in shapes))
    scores = random_scores(shapes, seed)
    chosen = choose_candidates(shapes, scores, budget, layout=layout)
    for units, score in zip(chosen, scores, strict=True):
        safe = np.delete(score, units)
        assert (np.diff(units) > 0).all()
        assert len(units) == 0 or score[units].max() < safe.min(initial=2.0)
    assert cost(shapes, chosen) >= budget
    assert all(len(u) <= removable(shape) for u, shape in zip(chosen, shapes, strict=True))


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.25])
def test_candidates_are_twice_the_budget_of_each_kind_and_not_more(share: float) -> None:
    shapes = model(groups=8, channels=400)
    budget = int(share * sum(shape.units * shape.price for shape in shapes))
    chosen = choose_candidates(shapes, random_scores(shapes, 0), budget, layout=Layout.PER_LAYER)
    for kind, units in ((GateKind.ATTENTION, 8), (GateKind.MLP, 400)):
        count = sum(len(u) for u, s in zip(chosen, shapes, strict=True) if s.kind is kind)
        assert abs(count - 2 * share * units * LAYERS) <= 1
    widths = {len(u) for u, s in zip(chosen, shapes, strict=True) if s.kind is GateKind.MLP}
    assert max(widths) - min(widths) <= 1


def test_the_odd_candidate_goes_to_the_gate_whose_next_unit_is_weakest() -> None:
    shapes = [GateShape(GateKind.ATTENTION, 2, 100) for _ in range(4)]
    scores = [np.array([1.0, weak]) for weak in (0.9, 0.1, 0.8, 0.2)]
    # An eighth of all units: of the eight, two candidates.
    chosen = choose_candidates(shapes, scores, 100, layout=Layout.PER_LAYER)
    assert [units.tolist() for units in chosen] == [[], [1], [], [1]]


def test_a_gate_with_one_unit_left_passes_its_share_on() -> None:
    one = GateShape(GateKind.ATTENTION, 1, 100)
    two = GateShape(GateKind.ATTENTION, 2, 100)
    shapes, scores = [one, one, two], [np.ones(1), np.ones(1), np.array([1.0, 1.0])]
    chosen = choose_candidates(shapes, scores, 50, layout=Layout.PER_LAYER)
    assert [len(units) for units in chosen] == [0, 0, 1]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("align", [1, 8])
@pytest.mark.parametrize("share", [0.003, 0.05, 0.2, 0.6, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_what_goes_meets_the_budget_by_less_than_one_step(
    layout: Layout, align: int, share: float, seed: int
) -> None:
    shapes = model(align=align)
    budget = int(share * sum(shape.units * shape.price for shape in shapes))
    candidates = choose_candidates(shapes, random_scores(shapes, seed), budget, layout=layout)
    importance = [np.random.default_rng(seed).normal(size=len(units)) for units in candidates]
    removed = select(shapes, candidates, importance, budget, layout=layout)
    step = max(ATTENTION_PRICE, align * MLP_PRICE) * (LAYERS if layout is Layout.UNIFORM else 1)
    price = cost(shapes, removed)
    most = sum(removable(shape) * shape.price for shape in shapes)
    assert min(budget, most) <= price < budget + step
    for units, offered in zip(removed, candidates, strict=True):
        assert set(units) <= set(offered)
    widths = kept(shapes, removed)
    assert min(widths) >= 1
    assert all(width % align == 0 and width >= align for width in widths[1::2])
    if layout is Layout.UNIFORM:
        assert len(set(widths[0::2])) == len(set(widths[1::2])) == 1


def test_the_least_important_per_parameter_go_first() -> None:
    shapes = [GateShape(GateKind.ATTENTION, 2, 400), GateShape(GateKind.MLP, 5, 100)]
    candidates = [np.array([1]), np.array([0, 2, 3, 4])]
    importance = [np.array([2.0]), np.array([0.4, 0.1, 0.6, 0.5])]  # 0.5 per 100 of attention
    removed = select(shapes, candidates, importance, 600, layout=Layout.PER_LAYER)
    assert [units.tolist() for units in removed] == [[1], [0, 2]]


def test_a_unit_too_large_for_the_rest_of_the_budget_gives_way_to_smaller_ones() -> None:
    shapes = [GateShape(GateKind.ATTENTION, 2, 400), GateShape(GateKind.MLP, 5, 100)]
    candidates = [np.array([1]), np.array([0, 2, 3, 4])]
    importance = [np.array([0.0]), np.array([4.0, 1.0, 6.0, 5.0])]
    removed = select(shapes, candidates, importance, 150, layout=Layout.PER_LAYER)
    assert [units.tolist() for units in removed] == [[], [0, 2]]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_width_that_is_no_multiple_is_trimmed_even_beyond_a_small_budget(layout: Layout) -> None:
    shapes = model(channels=61, align=8)
    assert [trimmed(shape) for shape in shapes[:2]] == [0, 5]
    candidates = choose_candidates(shapes, random_scores(shapes, 0), 10, layout=layout)
    importance = [np.ones(len(units)) for units in candidates]
    removed = select(shapes, candidates, importance, 10, layout=layout)
    assert kept(shapes, removed) == [4, 56] * LAYERS


def test_the_last_units_of_a_gate_always_stay() -> None:
    shapes = model(groups=3, channels=20, align=8)
    everything = sum(shape.units * shape.price for shape in shapes)
    scores = random_scores(shapes, 0)
    for layout in LAYOUTS:
        candidates = choose_candidates(shapes, scores, everything, layout=layout)
        importance = [np.ones(len(units)) for units in candidates]
        removed = select(shapes, candidates, importance, everything, layout=layout)
        assert kept(shapes, removed) == [1, 8] * LAYERS
