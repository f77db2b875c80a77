"""Second moments are X'X / n of recorded inputs, however many layers are heard at once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bonsai_core import portions, second_moments
from bonsai_core.blocks import OPENING_WEIGHT, Blocks
from bonsai_core.config import ModelSource
from bonsai_core.errors import BrokenNumericsError, Stopped
from bonsai_core.events import GoOn, regardless
from bonsai_core.gates import Gate, gates_of
from bonsai_core.models import LoadedModel, load
from bonsai_core.second_moments import SecondMoments, gather
from bonsai_core.shelf import Shelf
from bonsai_core.statistics import listening

# More tokens than one forward pass takes, so that several passes are summed up.
SEQUENCES = torch.randint(0, 256, (70, 40), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def loaded(saved_model: Callable[..., Path], architecture: str) -> LoadedModel:
    folder = saved_model(architecture, layers=3)
    return load(ModelSource(source=str(folder)), torch.device("cpu"))


@pytest.fixture
def gates(loaded: LoadedModel) -> list[Gate]:
    return gates_of(loaded.model, loaded.family, loaded.widths)


def taken(
    loaded: LoadedModel,
    gates: list[Gate],
    folder: Path,
    go_on: GoOn = regardless,
    shelf: Shelf | None = None,
) -> SecondMoments:
    layers = loaded.model.get_submodule(loaded.family.layers)
    backbone = loaded.model.get_submodule(loaded.family.backbone)
    return gather(Blocks(backbone, layers, SEQUENCES, shelf), gates, folder, go_on)


def inputs_of(loaded: LoadedModel, gate: Gate, sequences: torch.Tensor = SEQUENCES) -> np.ndarray:
    heard: list[torch.Tensor] = []
    with torch.inference_mode(), listening([gate], lambda _, x: heard.append(x)):
        loaded.model(sequences)
    return torch.cat(heard).double().numpy()


@pytest.mark.parametrize("bytes_at_once", [0, 4 * (32**2 + 48**2), 2**30], ids=["1", "1..2", "3"])
@pytest.mark.parametrize("shelved", [False, True])
def test_moments_are_the_mean_products_of_all_inputs(
    loaded: LoadedModel,
    gates: list[Gate],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bytes_at_once: int,
    shelved: bool,
) -> None:
    monkeypatch.setattr(second_moments, "BYTES_AT_ONCE", bytes_at_once)
    found = taken(loaded, gates, tmp_path, shelf=Shelf(tmp_path / "states") if shelved else None)
    for gate in gates:
        inputs = inputs_of(loaded, gate)
        moments = found.of(gate)
        assert moments.dtype == torch.float32
        assert torch.equal(moments, moments.T)
        np.testing.assert_allclose(moments, inputs.T @ inputs / len(inputs), rtol=1e-3, atol=1e-5)


def test_openings_weigh_as_much_as_some_tokens_of_each_sequence(
    loaded: LoadedModel, gates: list[Gate], tmp_path: Path
) -> None:
    openings = torch.randint(0, 256, (900,), generator=torch.Generator().manual_seed(1))
    layers = loaded.model.get_submodule(loaded.family.layers)
    backbone = loaded.model.get_submodule(loaded.family.backbone)
    found = gather(Blocks(backbone, layers, SEQUENCES, None, openings), gates, tmp_path)
    for gate in gates:
        many, few = inputs_of(loaded, gate), inputs_of(loaded, gate, openings[:, None])
        weight = OPENING_WEIGHT * len(SEQUENCES) / len(openings)
        expected = (many.T @ many + weight * few.T @ few) / (len(many) + weight * len(few))
        np.testing.assert_allclose(found.of(gate), expected, rtol=1e-3, atol=1e-5)


def test_layers_taken_one_by_one_give_the_same_bits(
    loaded: LoadedModel, gates: list[Gate], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = taken(loaded, gates, tmp_path / "together")
    monkeypatch.setattr(second_moments, "BYTES_AT_ONCE", 0)
    apart = taken(loaded, gates, tmp_path / "apart")
    assert all(torch.equal(apart.of(gate), together.of(gate)) for gate in gates)


def test_every_layer_runs_once_whatever_is_heard_at_once(
    loaded: LoadedModel, gates: list[Gate], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_moments, "BYTES_AT_ONCE", 0)
    tokens = [0, 0, 0]
    for gate in gates[1::2]:

        def count(_module: object, inputs: tuple[torch.Tensor], layer: int = gate.layer) -> None:
            tokens[layer] += inputs[0].flatten(0, -2).shape[0]

        gate.output.register_forward_pre_hook(count)
    backbone_only = Blocks(
        loaded.model.get_submodule(loaded.family.backbone),
        loaded.model.get_submodule(loaded.family.layers),
        SEQUENCES,
    )
    tokens[:] = [0, 0, 0]  # a layer was run once to see what it returns
    gather(backbone_only, gates, tmp_path)
    assert tokens == [SEQUENCES.numel()] * 3


def test_the_dense_projections_are_kept_whatever_is_tried_later(
    loaded: LoadedModel, gates: list[Gate], tmp_path: Path
) -> None:
    found = taken(loaded, gates, tmp_path)
    before = [gate.output.weight.clone() for gate in gates]
    for gate in gates:
        gate.output.weight.data.zero_()
    assert all(torch.equal(found.weight(g), w) for g, w in zip(gates, before, strict=True))


def test_the_model_is_left_as_it_was(
    loaded: LoadedModel, gates: list[Gate], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_moments, "BYTES_AT_ONCE", 0)
    monkeypatch.setitem(portions.TOKENS, "cpu", 400)
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    taken(loaded, gates, tmp_path / "whole")
    asked = 0

    def stop() -> None:
        nonlocal asked
        asked += 1
        if asked == 4:
            raise Stopped

    with pytest.raises(Stopped):
        taken(loaded, gates, tmp_path / "half", stop)
    after = loaded.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    modules = list(loaded.model.modules())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in modules)
    assert not any("forward" in vars(module) for module in modules)


def test_activations_that_are_not_finite_name_their_gate(
    loaded: LoadedModel, gates: list[Gate], tmp_path: Path
) -> None:
    with torch.no_grad():
        gates[0].producers[-1][0].weight.fill_(torch.nan)
    with pytest.raises(BrokenNumericsError, match=r"gate 0\.attention") as caught:
        taken(loaded, gates, tmp_path)
    assert caught.value.field == "model.dtype"
