"""Elimination does what trying every removal would, and its damage is the exact error."""

import numpy as np
import pytest
import torch

from bonsai_core import elimination
from bonsai_core.elimination import damped, eliminate, scores

DAMPING = 1e-2
Arrays = tuple[torch.Tensor, torch.Tensor]


def gate(columns: int, seed: int, rows: int = 5) -> Arrays:
    """A projection, and second moments of inputs that depend on each other."""
    random = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=random)
    inputs = torch.randn(300, columns, generator=random) @ mixing
    weight = torch.randn(rows, columns, generator=random)
    return weight, inputs.T @ inputs / len(inputs)


def exact(arrays: Arrays, gone: list[int]) -> float:
    """The least squared error without these columns, by solving for the others' weights."""
    weight, moments = (array.double().numpy() for array in arrays)
    matrix = moments + DAMPING * np.trace(moments) / len(moments) * np.eye(len(moments))
    kept = np.setdiff1d(np.arange(len(matrix)), gone)
    new = np.zeros_like(weight)
    # The minimum of tr (W - W') G (W - W')' over W' that are zero in the columns gone.
    new[:, kept] = np.linalg.solve(matrix[np.ix_(kept, kept)], matrix[kept] @ weight.T).T
    change = weight - new
    return float(np.trace(change @ matrix @ change.T))


def columns_of(units: list[int], size: int) -> list[int]:
    return [unit * size + offset for unit in units for offset in range(size)]


def greedy(arrays: Arrays, size: int, count: int) -> list[int]:
    """The order found by trying every unit that is left, each time."""
    units, order = arrays[0].shape[1] // size, list[int]()
    for _ in range(count):
        left = [unit for unit in range(units) if unit not in order]
        errors = [exact(arrays, columns_of([*order, unit], size)) for unit in left]
        order.append(left[int(np.argmin(errors))])
    return order


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_one_by_one_it_is_the_greedy_search_over_all_removals(
    monkeypatch: pytest.MonkeyPatch, size: int, seed: int
) -> None:
    monkeypatch.setattr(elimination, "_BLOCK", 1)
    arrays = gate(12, seed)
    count = 12 // size - 1
    found = eliminate(*arrays, size, count, DAMPING)
    assert found.order.tolist() == greedy(arrays, size, count)
    for place in range(count):
        gone = columns_of(found.order[: place + 1].tolist(), size)
        assert found.damage[place] == pytest.approx(exact(arrays, gone), rel=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_the_damage_of_a_block_is_the_exact_error_of_all_that_went(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(elimination, "_BLOCK", 8)
    arrays = gate(40, seed)
    found = eliminate(*arrays, 1, 37, DAMPING)
    assert len(set(found.order.tolist())) == 37
    assert (np.diff(found.damage) >= 0).all()
    for end in (8, 16, 24, 32, 37):
        expected = exact(arrays, found.order[:end].tolist())
        assert found.damage[end - 1] == pytest.approx(expected, rel=1e-3)


def test_blocks_of_a_fiftieth_do_hardly_more_damage_than_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrays, damage = gate(200, 0), []
    for block in (1, 4):
        monkeypatch.setattr(elimination, "_BLOCK", block)
        damage.append(eliminate(*arrays, 1, 100, DAMPING).damage[-1])
    assert damage[1] < 1.1 * damage[0]


def test_columns_that_others_can_stand_in_for_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elimination, "_BLOCK", 1)
    weight, moments = gate(12, 0)
    copies = torch.cat([torch.eye(12), torch.eye(12)[:3]])  # columns 12 to 14 repeat 0 to 2
    found = eliminate(
        torch.cat([weight, weight[:, :3]], dim=1), copies @ moments @ copies.T, 1, 3, 1e-6
    )
    assert {unit % 12 for unit in found.order.tolist()} == {0, 1, 2}


def test_the_arrays_given_stay_as_they_are() -> None:
    for dtype in (torch.float32, torch.float64):
        arrays = tuple(array.to(dtype) for array in gate(12, 0))
        before = [array.clone() for array in arrays]
        eliminate(*arrays, 1, 5, DAMPING)
        assert all(torch.equal(a, b) for a, b in zip(arrays, before, strict=True))


@pytest.mark.parametrize("size", [1, 4])
def test_scores_rise_in_the_order_of_removal_and_every_unit_has_one(size: int) -> None:
    arrays = gate(40, 1)
    found = scores(*arrays, size, DAMPING)
    order = eliminate(*arrays, size, 40 // size - 1, DAMPING).order
    (last,) = set(range(40 // size)) - set(order.tolist())
    assert np.argsort(found, kind="stable").tolist() == [*order.tolist(), last]
    assert found.dtype == np.float64
    assert (np.isfinite(found) & (found >= 0)).all()


def test_a_single_unit_has_a_score() -> None:
    assert scores(*gate(4, 0), 4, DAMPING).tolist() == [1.0]


@pytest.mark.parametrize("size", [1, 4])
def test_inputs_that_were_always_zero_cost_nothing_and_all_units_are_ordered(size: int) -> None:
    weight, moments = gate(80, 0)
    for dead in (range(80), range(0, 80, 2)):
        changed = moments.clone()
        changed[list(dead)] = 0
        changed[:, list(dead)] = 0
        found = scores(weight, changed, size, DAMPING)
        assert np.isfinite(found).all()
        order = eliminate(weight, changed, size, 80 // size - 1, DAMPING).order
        assert len(set(order.tolist())) == len(order)
    assert scores(weight, torch.zeros(80, 80), size, DAMPING).max() < 1e-6


@pytest.mark.parametrize("size", [1, 4])
def test_a_wide_gates_inverse_is_made_in_portions(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    arrays = gate(48, 0)
    whole = eliminate(*arrays, size, 48 // size - 1, DAMPING)
    monkeypatch.setattr(elimination, "_INVERTED_AT_ONCE", 47)
    monkeypatch.setattr(elimination, "_COLUMNS", 7)
    in_portions = eliminate(*arrays, size, 48 // size - 1, DAMPING)
    assert in_portions.order.tolist() == whole.order.tolist()
    assert in_portions.damage == pytest.approx(whole.damage, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_damping_adds_a_share_of_the_mean_second_moment(dtype: torch.dtype) -> None:
    moments = gate(6, 0)[1].to(dtype)
    before = moments.clone()
    found = damped(moments, 0.5)
    expected = before.double() + 0.5 * before.double().trace() / 6 * torch.eye(6)
    assert found.dtype == torch.float64
    assert torch.allclose(found, expected)
    assert torch.equal(moments, before)
