"""Both ways to share out a removal meet the target to within half a channel."""

import numpy as np
import pytest

from benchmarks.allocation import lowest, lowest_of_all, uniform_counts
from bonsai_core.families import GateKind
from bonsai_core.selection import GateShape

LAYERS = 30
SHAPES = [
    GateShape(GateKind.ATTENTION, 3, 294_912),
    GateShape(GateKind.MLP, 1536, 1728),
] * LAYERS
TOTAL = sum(shape.units * shape.price for shape in SHAPES) + 61 * 576
SPARSITIES = [0.1, 0.2, 0.3, 0.4, 0.5]


def cost(counts: list[int]) -> int:
    return sum(count * shape.price for count, shape in zip(counts, SHAPES, strict=True))


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("attention", [True, False])
def test_a_uniform_removal_is_within_half_a_channel(sparsity: float, attention: bool) -> None:
    counts = uniform_counts(SHAPES, sparsity * TOTAL, sparsity, attention=attention)
    assert abs(cost(counts) - sparsity * TOTAL) <= 1728 / 2
    groups, channels = counts[0::2], counts[1::2]
    assert sum(groups) == (round(sparsity * 90) if attention else 0)
    assert max(groups) - min(groups) <= 1
    assert max(channels) - min(channels) <= 1


def test_layers_that_lose_one_more_are_spread_evenly() -> None:
    counts = uniform_counts(SHAPES, 0.1 * TOTAL, 0.1, attention=True)
    layers = np.flatnonzero(counts[0::2])
    assert len(layers) == 9
    assert set(np.diff(layers)) == {3, 4}


def test_more_than_the_channels_can_give_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        uniform_counts(SHAPES, 0.9 * TOTAL, 0.9, attention=False)


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_a_global_removal_is_within_half_a_channel_and_takes_the_lowest(sparsity: float) -> None:
    random = np.random.default_rng(0)
    scores = [random.random(shape.units) for shape in SHAPES]
    chosen = lowest_of_all(SHAPES, scores, sparsity * TOTAL)
    assert abs(cost([len(units) for units in chosen]) - sparsity * TOTAL) <= 1728 / 2
    for units, values in zip(chosen, scores, strict=True):
        assert len(units) < len(values)
        assert units.tolist() == lowest(values, len(units)).tolist()


def test_a_global_removal_leaves_every_gate_a_unit() -> None:
    scores = [np.zeros(3) if shape.units == 3 else np.arange(1536.0) + 1 for shape in SHAPES]
    chosen = lowest_of_all(SHAPES, scores, 0.5 * TOTAL)
    assert [len(units) for units in chosen[0::2]] == [2] * LAYERS
