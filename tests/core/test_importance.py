"""The closed-form fit is scikit-learn's, at any shape, and fast at the real one."""

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from bonsai_core.importance import REGULARISATIONS, fit


def problem(masks: int, candidates: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Complementary masks, and utilities that depend on them with some noise."""
    random = np.random.default_rng(seed)
    drawn = random.random((masks // 2, candidates)) < 0.5
    absent = np.concatenate([drawn, ~drawn])
    effect = random.normal(size=candidates) / np.sqrt(candidates)
    return absent, -3 + absent @ effect + 0.3 * random.normal(size=masks)


def strengths(absent: np.ndarray) -> np.ndarray:
    """The absolute strengths that `fit` tries: relative to the mean eigenvalue."""
    centred = absent - absent.mean(axis=0)
    singular = np.linalg.svd(centred, compute_uv=False)
    alive = singular[singular**2 > singular.max() ** 2 * 1e-12]
    return REGULARISATIONS * np.square(alive).mean()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("masks", "candidates"), [(20, 300), (40, 40), (60, 7), (200, 30), (4, 5), (8, 1)]
)
def test_the_fit_is_that_of_scikit_learn(masks: int, candidates: int, seed: int) -> None:
    absent, utilities = problem(masks, candidates, seed)
    theirs = RidgeCV(alphas=strengths(absent), store_cv_results=True).fit(absent, utilities)
    ours = fit(absent, utilities)
    assert ours.regularisation == pytest.approx(theirs.alpha_)
    np.testing.assert_allclose(ours.coefficients, theirs.coef_, rtol=1e-6, atol=1e-9)
    errors = theirs.cv_results_.mean(axis=0)
    assert ours.leave_one_out_error == pytest.approx(errors.min())


def test_leave_one_out_is_what_leaving_one_out_gives() -> None:
    absent, utilities = problem(12, 30)
    found = fit(absent, utilities)
    errors, told = [], []
    for left_out in range(12):
        rest = np.delete(absent, left_out, axis=0).astype(float)
        targets = np.delete(utilities, left_out)
        centred = rest - rest.mean(axis=0)
        inner = centred @ centred.T + found.regularisation * np.eye(11)
        slope = centred.T @ np.linalg.solve(inner, targets - targets.mean())
        predicted = targets.mean() + (absent[left_out] - rest.mean(axis=0)) @ slope
        told.append(predicted)
        errors.append((utilities[left_out] - predicted) ** 2)
    np.testing.assert_allclose(found.predicted, told)
    assert found.leave_one_out_error == pytest.approx(np.mean(errors))
    assert found.explained == pytest.approx(1 - np.mean(errors) / utilities.var())


def test_a_true_linear_damage_is_found_again() -> None:
    random = np.random.default_rng(5)
    drawn = random.random((100, 20)) < 0.5
    absent = np.concatenate([drawn, ~drawn])
    damage = -np.arange(20.0)
    found = fit(absent, 7 + absent @ damage)
    np.testing.assert_allclose(found.coefficients, damage, atol=0.05)
    assert found.explained > 0.999


def test_a_mask_that_never_changes_says_nothing() -> None:
    found = fit(np.ones((6, 3), dtype=bool), np.arange(6.0))
    assert found.coefficients.tolist() == [0, 0, 0]
    assert np.isinf(found.regularisation)


def test_equal_utilities_give_no_importance_to_anything() -> None:
    absent, _ = problem(10, 4)
    found = fit(absent, np.full(10, -2.5))
    np.testing.assert_allclose(found.coefficients, 0, atol=1e-12)
    assert found.explained == 0
    assert np.isfinite(found.regularisation)


def test_no_candidates_is_no_fit() -> None:
    assert fit(np.empty((4, 0), dtype=bool), np.arange(4.0)).coefficients.shape == (0,)
