"""The repair is the ridge solution that numpy gives, and it lowers the error of the output."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bonsai_core import refit
from bonsai_core.config import ModelSource
from bonsai_core.errors import BrokenNumericsError
from bonsai_core.gates import Gate, gates_of
from bonsai_core.models import LoadedModel, load
from bonsai_core.refit import DAMPING, refitted
from bonsai_core.statistics import listening

SEQUENCES = torch.randint(0, 256, (70, 40), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def loaded(saved_model: Callable[..., Path], architecture: str) -> LoadedModel:
    return load(ModelSource(source=str(saved_model(architecture))), torch.device("cpu"))


@pytest.fixture
def gates(loaded: LoadedModel) -> list[Gate]:
    return gates_of(loaded.model, loaded.family, loaded.widths)


def absent_units(gates: list[Gate]) -> list[np.ndarray]:
    """Something of every gate but the last."""
    return [np.arange(1, gate.units, 2) for gate in gates[:-1]] + [np.array([], dtype=np.int64)]


def inputs_of(loaded: LoadedModel, gate: Gate) -> np.ndarray:
    heard: list[torch.Tensor] = []
    with torch.inference_mode(), listening([gate], lambda _, x: heard.append(x)):
        loaded.model(SEQUENCES)
    return heard[0].double().numpy()


def test_new_weights_are_least_squares_with_a_ridge_towards_the_old_ones(
    loaded: LoadedModel, gates: list[Gate]
) -> None:
    absent = absent_units(gates)
    weights = refitted(loaded.model.model, gates, absent, SEQUENCES)
    assert set(weights) == {gate.name for gate in gates[:-1]}
    for gate, units in zip(gates[:-1], absent, strict=False):
        inputs = inputs_of(loaded, gate)
        kept = np.setdiff1d(np.arange(inputs.shape[1]), gate.columns_of(units))
        old = gate.output.weight.double().numpy()
        strength = DAMPING * np.square(inputs[:, kept]).sum(axis=0).mean()
        rows = np.concatenate([inputs[:, kept], np.sqrt(strength) * np.eye(len(kept))])
        targets = np.concatenate([inputs @ old.T, np.sqrt(strength) * old[:, kept].T])
        expected = np.linalg.lstsq(rows, targets, rcond=None)[0].T
        np.testing.assert_allclose(weights[gate.name], expected, rtol=1e-3, atol=1e-4)


def test_the_output_error_is_smaller_than_that_of_a_plain_cut(
    loaded: LoadedModel, gates: list[Gate]
) -> None:
    absent = absent_units(gates)
    weights = refitted(loaded.model.model, gates, absent, SEQUENCES)
    for gate, units in zip(gates[:-1], absent, strict=False):
        inputs = inputs_of(loaded, gate)
        kept = np.setdiff1d(np.arange(inputs.shape[1]), gate.columns_of(units))
        old = gate.output.weight.double().numpy()
        repaired = weights[gate.name].double().numpy()
        error = np.square(inputs[:, kept] @ repaired.T - inputs @ old.T).sum()
        error_of_cut = np.square(inputs[:, kept] @ old[:, kept].T - inputs @ old.T).sum()
        assert error < 0.98 * error_of_cut


def test_the_model_is_left_as_it_was(loaded: LoadedModel, gates: list[Gate]) -> None:
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    refitted(loaded.model.model, gates, absent_units(gates), SEQUENCES)
    after = loaded.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(module._forward_pre_hooks for module in loaded.model.modules())


def test_gates_taken_one_by_one_give_the_same(
    loaded: LoadedModel, gates: list[Gate], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = absent_units(gates)
    together = refitted(loaded.model.model, gates, absent, SEQUENCES)
    monkeypatch.setattr(refit, "_GRAM_BYTES_AT_ONCE", 0)
    apart = refitted(loaded.model.model, gates, absent, SEQUENCES)
    assert all(torch.equal(apart[name], weight) for name, weight in together.items())


def test_activations_that_are_not_finite_name_their_gate(
    loaded: LoadedModel, gates: list[Gate]
) -> None:
    with torch.no_grad():
        gates[0].producers[-1][0].weight.fill_(torch.nan)
    with pytest.raises(BrokenNumericsError, match=r"gate 0\.attention"):
        refitted(loaded.model.model, gates, absent_units(gates), SEQUENCES)


def test_dead_activations_can_be_refitted(loaded: LoadedModel, gates: list[Gate]) -> None:
    with torch.no_grad():
        for linear, _ in gates[0].producers:
            linear.weight.zero_()
            if linear.bias is not None:
                linear.bias.zero_()
    weights = refitted(loaded.model.model, gates[:1], [np.array([0])], SEQUENCES)
    assert torch.isfinite(weights["0.attention"]).all()
