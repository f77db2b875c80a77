"""Cutting gives the logits that the mask gave, in every family, and takes what the plan says."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bonsai_core.config import ModelSource
from bonsai_core.families import GateKind, unit_price
from bonsai_core.gates import Gate, expand, gates_of
from bonsai_core.masks import applied
from bonsai_core.models import LoadedModel, dense_config, load, non_embedding_parameters
from bonsai_core.surgery import cut

TOKENS = torch.arange(60).reshape(3, 20) * 4


def logits(loaded: LoadedModel) -> torch.Tensor:
    with torch.inference_mode():
        return loaded.model(TOKENS).logits


def loaded_model(folder: Path) -> tuple[LoadedModel, list[Gate]]:
    loaded = load(ModelSource(source=str(folder)), torch.device("cpu"))
    return loaded, gates_of(loaded.model, loaded.family, loaded.widths)


def some_units(gates: list[Gate]) -> list[np.ndarray]:
    """A different part of each gate; nothing of some, all but one of others."""
    random = np.random.default_rng(0)
    counts = [(gate.units - 1) * number // (len(gates) - 1) for number, gate in enumerate(gates)]
    return [
        np.sort(random.choice(gate.units, size=count, replace=False)).astype(np.int64)
        for gate, count in zip(gates, counts, strict=True)
    ]


@pytest.mark.parametrize("groups", [1, 2, 4], ids=lambda groups: f"groups-{groups}-of-4")
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_cut_logits_are_the_masked_logits(
    saved_model: Callable[..., Path], architecture: str, groups: int, tied: bool
) -> None:
    loaded, gates = loaded_model(saved_model(architecture, groups=groups, tied=tied, layers=3))
    absent = some_units(gates)
    assert any(len(units) for units in absent)
    with applied(gates, absent):
        masked = logits(loaded)
    for gate, units in zip(gates, absent, strict=True):
        cut(gate, units)
    assert torch.allclose(logits(loaded), masked, rtol=0, atol=1e-4)
    assert masked.abs().mean() > 1


@pytest.mark.parametrize("biases", [{}, {"attention_bias": True}], ids=["plain", "biased"])
def test_the_price_of_a_plan_is_what_goes(
    saved_model: Callable[..., Path], architecture: str, biases: dict[str, bool]
) -> None:
    takes_biases = architecture in {"LlamaForCausalLM", "Qwen3ForCausalLM"}
    folder = saved_model(architecture, **(biases if takes_biases else {}))
    loaded, gates = loaded_model(folder)
    before = non_embedding_parameters(loaded.model)
    absent = some_units(gates)
    price = sum(len(units) * gate.price for gate, units in zip(gates, absent, strict=True))
    returned = sum(cut(gate, units) for gate, units in zip(gates, absent, strict=True))
    assert before - non_embedding_parameters(loaded.model) == price == returned
    config = dense_config(ModelSource(source=str(folder)))
    prices = {p.kind: unit_price(p, loaded.widths, config) for p in loaded.family.gates}
    assert all(gate.price == prices[gate.kind] for gate in gates)


def test_kept_units_keep_their_numbers_over_several_cuts(saved_model: Callable[..., Path]) -> None:
    _, gates = loaded_model(saved_model())
    mlp = next(gate for gate in gates if gate.kind is GateKind.MLP)
    weight = mlp.output.weight.clone()
    cut(mlp, np.array([0, 3]))
    cut(mlp, np.array([0, 1]))  # numbers 1 and 2 by now
    assert mlp.kept[:3].tolist() == [4, 5, 6]
    assert torch.equal(mlp.output.weight, weight[:, mlp.kept])
    assert mlp.output.in_features == mlp.units == 44
    assert [linear.out_features for linear, _ in mlp.producers] == [44, 44]


def test_cutting_nothing_changes_nothing(saved_model: Callable[..., Path]) -> None:
    _, gates = loaded_model(saved_model())
    weight = gates[0].output.weight
    assert cut(gates[0], np.array([], dtype=np.int64)) == 0
    assert gates[0].output.weight is weight


def test_a_gate_is_never_emptied(saved_model: Callable[..., Path]) -> None:
    _, gates = loaded_model(saved_model())
    with pytest.raises(AssertionError, match=r"0\.attention: a gate keeps at least one unit"):
        cut(gates[0], np.arange(gates[0].units))


def test_a_cut_model_holds_on_to_no_memory_of_the_dense_one(
    saved_model: Callable[..., Path],
) -> None:
    _, gates = loaded_model(saved_model())
    mlp = gates[1]
    cut(mlp, np.arange(20))
    for linear in (mlp.output, *(linear for linear, _ in mlp.producers)):
        assert linear.weight.untyped_storage().nbytes() == linear.weight.numel() * 4


def test_units_expand_to_their_columns() -> None:
    assert expand(np.array([0, 2]), 3).tolist() == [0, 1, 2, 6, 7, 8]
