"""A cut is final: units keep their numbers, modules their identity, and no memory is held.

That cut logits are the masked logits is tested for every family in test_family_contract.py.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bonsai_core.config import ModelSource
from bonsai_core.families import GateKind
from bonsai_core.gates import Gate, expand, gates_of
from bonsai_core.models import LoadedModel, load
from bonsai_core.surgery import cut


def loaded_model(folder: Path) -> tuple[LoadedModel, list[Gate]]:
    loaded = load(ModelSource(source=str(folder)), torch.device("cpu"))
    return loaded, gates_of(loaded.model, loaded.family, loaded.widths)


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
