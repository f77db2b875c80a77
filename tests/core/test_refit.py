"""The repair is the ridge solution that numpy gives, and it lowers the error of the output."""

import numpy as np
import pytest
import torch

from bonsai_core.refit import repaired

DAMPING = 1e-2
INPUTS = torch.randn(500, 12, generator=torch.Generator().manual_seed(0)) @ torch.randn(
    12, 12, generator=torch.Generator().manual_seed(1)
)
WEIGHT = torch.randn(7, 12, generator=torch.Generator().manual_seed(2))
MOMENTS = INPUTS.T @ INPUTS / len(INPUTS)
PLANS = [[0], [1, 3, 5, 7, 9, 11], list(range(11))]


def mask(units: list[int]) -> torch.Tensor:
    return torch.isin(torch.arange(12), torch.tensor(units, dtype=torch.long))


def error(weight: torch.Tensor) -> float:
    """Mean squared error of the output."""
    return float((INPUTS @ (weight - WEIGHT).T).square().sum(1).mean())


@pytest.mark.parametrize("gone", PLANS)
def test_new_weights_are_least_squares_with_a_ridge_towards_the_old_ones(gone: list[int]) -> None:
    found = repaired(WEIGHT, MOMENTS, mask(gone), DAMPING).numpy()
    inputs, old = INPUTS.double().numpy(), WEIGHT.double().numpy()
    kept = np.setdiff1d(np.arange(12), gone)
    ridge = np.sqrt(len(inputs) * DAMPING * np.square(inputs).mean())
    rows = np.concatenate([inputs[:, kept], ridge * np.eye(len(kept))])
    targets = np.concatenate([inputs @ old.T, ridge * old[:, kept].T])
    expected = np.linalg.lstsq(rows, targets, rcond=None)[0].T
    np.testing.assert_allclose(found[:, kept], expected, rtol=1e-4, atol=1e-4)
    assert (found[:, gone] == 0).all()


@pytest.mark.parametrize("gone", PLANS[:2])
def test_the_output_error_is_smaller_than_that_of_a_plain_cut(gone: list[int]) -> None:
    plain = error(WEIGHT.masked_fill(mask(gone), 0))
    errors = [error(repaired(WEIGHT, MOMENTS, mask(gone), d)) for d in (1e-4, 1e-2, 1.0, 1e3)]
    assert errors == sorted(errors)
    assert errors[0] < 0.9 * plain
    assert errors[-1] == pytest.approx(plain, rel=0.01)


def test_nothing_gone_changes_nothing() -> None:
    assert torch.equal(repaired(WEIGHT, MOMENTS, mask([]), DAMPING), WEIGHT)


def test_what_is_given_stays_as_it_was_and_the_number_format_too() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        weight, moments = WEIGHT.to(dtype), MOMENTS.double()
        before = weight.clone(), moments.clone()
        assert repaired(weight, moments, mask([1, 2]), DAMPING).dtype == dtype
        assert torch.equal(weight, before[0])
        assert torch.equal(moments, before[1])


def test_dead_activations_can_be_repaired() -> None:
    found = repaired(WEIGHT, torch.zeros(12, 12), mask([0, 1]), DAMPING)
    assert torch.equal(found, WEIGHT.masked_fill(mask([0, 1]), 0))
