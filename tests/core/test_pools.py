"""The experts of a layer are one pool, and the prior says which of their units go first."""

import numpy as np
import pytest

from bonsai_core.families import GateKind
from bonsai_core.gates import Units
from bonsai_core.recipe import Situation, nothing
from bonsai_core.recipes.pools import by_gate, pools_of
from bonsai_core.selection import GateShape

SCORES = [
    np.arange(8.0),
    np.array([9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
    np.arange(10.0) + 4.5,
]


def situation(block: int = 1) -> Situation:
    alone = GateShape(GateKind.MLP, 8, 100, block=block)
    expert = GateShape(GateKind.MLP, 10, 30, group=7, block=block)
    shapes = [alone, expert, expert]
    return Situation(1, shapes, SCORES, nothing(shapes), 100, 1000)


def test_a_gate_alone_is_a_pool_whose_units_go_in_turn() -> None:
    pool, _ = pools_of(situation(block=4))
    assert (pool.shape.units, pool.shape.price, pool.most) == (8, 100, 4)
    assert [pool.counts(count) for count in (0, 3, 8)] == [{0: 0}, {0: 3}, {0: 8}]


def test_experts_are_one_pool_in_the_order_of_their_scores() -> None:
    _, pool = pools_of(situation())
    assert (pool.shape.units, pool.shape.price, pool.most) == (20, 30, 18)
    # Scores 0 to 9 and 4.5 to 13.5: five of the first go, and then they take turns.
    assert [pool.counts(count) for count in (5, 6, 7, 13)] == [
        {1: 5, 2: 0},
        {1: 5, 2: 1},
        {1: 6, 2: 1},
        {1: 9, 2: 4},
    ]
    # The strongest unit of each stays as long as any other is left.
    assert pool.counts(18) == {1: 9, 2: 9}
    assert pool.counts(20) == {1: 10, 2: 10}


@pytest.mark.parametrize("align", [2, 4])
def test_whole_blocks_of_an_expert_go_at_once(align: int) -> None:
    _, pool = pools_of(situation(align))
    for count in range(10 % align * 2, pool.most + 1, align):
        found = pool.counts(count)
        assert sum(found.values()) == count
        assert all(number in (0, 10) or (10 - number) % align == 0 for number in found.values())


def test_costs_of_a_pool_are_dealt_out_by_its_order() -> None:
    pools = pools_of(situation())
    costs = [np.arange(pool.shape.units, dtype=np.float64) for pool in pools]
    alone, first, second = by_gate(pools, costs, 3)
    assert alone.tolist() == list(range(8))
    assert first.tolist()[:6] == [0, 1, 2, 3, 4, 6]
    assert sorted([*first, *second]) == list(range(20))
    assert all((np.diff(found) > 0).all() for found in (first, second))


def test_a_plan_takes_from_a_pool_what_it_takes_from_its_gates() -> None:
    plan: list[Units] = [np.arange(2), np.arange(3), np.arange(4)]
    assert [pool.gone(plan) for pool in pools_of(situation())] == [2, 7]
