"""The scores are those of the papers' formulas, written out as loops."""

import numpy as np
import pytest
from torch import Tensor

from benchmarks.baselines import Subject
from benchmarks.calibration_statistics import Need
from benchmarks.unit_scores import fluctuation, magnitude, standardised, wanda


def test_wanda_is_the_sum_of_squared_weights_times_mean_squared_inputs(
    subject: Subject, inputs: dict[str, Tensor]
) -> None:
    subject.statistics.prepare(Need.COLUMNS)
    for gate in subject.gates:
        weight, x = gate.output.weight.double().numpy(), inputs[gate.name].double().numpy()
        expected = np.zeros(gate.units)
        for unit in range(gate.units):
            for column in range(unit * gate.columns, (unit + 1) * gate.columns):
                for row in range(weight.shape[0]):
                    expected[unit] += weight[row, column] ** 2 * np.mean(x[:, column] ** 2)
        mean_square = subject.statistics.mean_square(gate, Need.COLUMNS)
        found = wanda(gate.output.weight, mean_square, gate.columns)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("need", [Need.COLUMNS, Need.MOMENTS])
def test_both_statistics_give_the_same_mean_squares(
    subject: Subject, inputs: dict[str, Tensor], need: Need
) -> None:
    subject.statistics.prepare(need)
    for gate in subject.gates:
        expected = inputs[gate.name].double().square().mean(0)
        found = subject.statistics.mean_square(gate, need)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_magnitude_of_a_unit_is_the_norm_of_all_that_goes_with_it(subject: Subject) -> None:
    for gate in subject.gates:
        found = magnitude(gate)
        for unit in range(gate.units):
            columns = range(unit * gate.columns, (unit + 1) * gate.columns)
            square = sum(float(gate.output.weight[:, c].double().square().sum()) for c in columns)
            for linear, (rows,) in gate.producers:
                part = linear.weight[unit * rows : (unit + 1) * rows]
                square += float(part.double().square().sum())
            assert found[unit] == pytest.approx(np.sqrt(square))


def test_fluctuation_is_the_variance_times_the_squared_norm_of_the_column(
    subject: Subject, inputs: dict[str, Tensor]
) -> None:
    subject.statistics.prepare(Need.COLUMNS)
    for gate in subject.gates:
        weight, x = gate.output.weight.double().numpy(), inputs[gate.name].double().numpy()
        expected = [
            np.var(x[:, column]) * np.linalg.norm(weight[:, column]) ** 2
            for column in range(weight.shape[1])
        ]
        found = fluctuation(gate.output.weight, subject.statistics.columns(gate))
        np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_standardised_scores_have_mean_zero_and_deviation_one() -> None:
    found = standardised(np.array([1.0, 5.0, 9.0]))
    assert found.mean() == pytest.approx(0)
    assert found.std() == pytest.approx(1)
    assert standardised(np.ones(3)).tolist() == [0, 0, 0]
