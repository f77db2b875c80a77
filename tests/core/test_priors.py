"""Statistics and priors are those of the formulas, computed from recorded activations."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from bonsai_core.config import ModelSource, Prior
from bonsai_core.gates import Gate, gates_of
from bonsai_core.models import LoadedModel, load
from bonsai_core.priors import unit_scores
from bonsai_core.seeds import generator
from bonsai_core.statistics import ColumnStatistics, column_statistics, listening

# More tokens than one forward pass takes, so that several passes are summed up.
SEQUENCES = torch.randint(0, 256, (70, 40), generator=torch.Generator().manual_seed(0))


@dataclass
class Recorded:
    """A gate, its statistics, and every activation that they sum up; [tokens, C]."""

    gate: Gate
    statistics: ColumnStatistics
    inputs: np.ndarray


@pytest.fixture(scope="module")
def loaded(saved_model: Callable[..., Path]) -> LoadedModel:
    return load(ModelSource(source=str(saved_model())), torch.device("cpu"))


@pytest.fixture(scope="module", params=[2, 3], ids=["attention", "mlp"])
def recorded(loaded: LoadedModel, request: pytest.FixtureRequest) -> Recorded:
    gates = gates_of(loaded.model, loaded.family, loaded.widths)
    statistics = column_statistics(loaded.model.model, gates, SEQUENCES)
    heard: list[torch.Tensor] = []
    with torch.inference_mode(), listening([gates[request.param]], lambda _, x: heard.append(x)):
        loaded.model(SEQUENCES)
    return Recorded(gates[request.param], statistics[request.param], heard[0].double().numpy())


def scores(recorded: Recorded, prior: Prior) -> np.ndarray:
    gate = recorded.gate
    random = generator(0, 1, "prior")
    return unit_scores(prior, gate.output.weight, recorded.statistics, gate.columns, random)


def by_unit(recorded: Recorded, columns: np.ndarray) -> np.ndarray:
    return columns.reshape(-1, recorded.gate.columns).mean(axis=1)


def test_statistics_are_the_moments_of_all_tokens(recorded: Recorded) -> None:
    found, inputs = recorded.statistics, recorded.inputs
    assert inputs.shape == (SEQUENCES.numel(), recorded.gate.output.in_features)
    np.testing.assert_allclose(found.mean, inputs.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.mean_absolute, np.abs(inputs).mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(found.mean_square, np.square(inputs).mean(axis=0), rtol=1e-4)


def test_wanda_is_weight_times_input_norm(recorded: Recorded) -> None:
    weight = recorded.gate.output.weight.double().numpy()
    norm = np.sqrt(np.square(recorded.inputs).mean(axis=0))
    expected = by_unit(recorded, (np.abs(weight) * norm).mean(axis=0))
    np.testing.assert_allclose(scores(recorded, Prior.WANDA), expected, rtol=1e-4)


def test_activation_is_the_mean_magnitude(recorded: Recorded) -> None:
    expected = by_unit(recorded, np.abs(recorded.inputs).mean(axis=0))
    np.testing.assert_allclose(scores(recorded, Prior.ACTIVATION), expected, rtol=1e-4)


def test_fluctuation_is_variance_times_squared_weights(recorded: Recorded) -> None:
    weight = recorded.gate.output.weight.double().numpy()
    expected = by_unit(recorded, recorded.inputs.var(axis=0) * np.square(weight).sum(axis=0))
    np.testing.assert_allclose(scores(recorded, Prior.FLUCTUATION), expected, rtol=1e-3)


def test_random_scores_depend_on_the_generator_only(recorded: Recorded) -> None:
    first, second = scores(recorded, Prior.RANDOM), scores(recorded, Prior.RANDOM)
    assert (first == second).all()
    assert len(set(first)) == recorded.gate.units


@pytest.mark.parametrize("prior", sorted(set(Prior) - {Prior.ELIMINATION}))
def test_every_prior_of_columns_gives_each_unit_a_score(recorded: Recorded, prior: Prior) -> None:
    found = scores(recorded, prior)
    assert found.shape == (recorded.gate.units,)
    assert found.dtype == np.float64
    assert (np.isfinite(found) & (found >= 0)).all()


def test_elimination_is_no_prior_of_columns(recorded: Recorded) -> None:
    with pytest.raises(ValueError, match=r"bonsai_core\.elimination"):
        scores(recorded, Prior.ELIMINATION)


def test_listening_leaves_no_hooks(loaded: LoadedModel) -> None:
    gates = gates_of(loaded.model, loaded.family, loaded.widths)
    with pytest.raises(RuntimeError), listening(gates, lambda _index, _values: None):
        raise RuntimeError
    column_statistics(loaded.model.model, gates, SEQUENCES[:1])
    assert not any(module._forward_pre_hooks for module in loaded.model.modules())
