"""Layers that come and go: the budget is never passed, and nothing else changes."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bonsai_core.blocks import Blocks
from bonsai_core.config import ModelSource, PruneRequest
from bonsai_core.errors import InsufficientMemoryError
from bonsai_core.gates import gates_of
from bonsai_core.ledger import MemoryLedger
from bonsai_core.masks import applied
from bonsai_core.models import LoadedModel, load
from bonsai_core.pruner import prune
from bonsai_core.surgery import cut
from tests.core.conftest import contents
from tests.tiny_models import ARCHITECTURES

CPU = torch.device("cpu")
TOKENS = torch.arange(60).reshape(3, 20) * 4


def loaded_from(folder: Path, budget: int | None = None) -> LoadedModel:
    return load(ModelSource(source=str(folder)), CPU, budget)


def layers_of(loaded: LoadedModel) -> torch.nn.ModuleList:
    layers = loaded.model.get_submodule(loaded.family.layers)
    assert isinstance(layers, torch.nn.ModuleList)
    return layers


def size_of(module: torch.nn.Module) -> int:
    return sum(value.nbytes for value in [*module.parameters(), *module.buffers()])


def beside_layers(loaded: LoadedModel) -> int:
    return size_of(loaded.model) - size_of(layers_of(loaded))


@torch.inference_mode()
def logits(loaded: LoadedModel) -> torch.Tensor:
    found: torch.Tensor = loaded.model(TOKENS, use_cache=False).logits
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_family_streams_to_the_same_logits(
    saved_model: Callable[..., Path], architecture: str
) -> None:
    folder = saved_model(architecture, layers=3)
    whole = loaded_from(folder)
    assert whole.streaming.streamed == 0
    assert whole.streaming.peak == size_of(whole.model)
    layer = max(map(size_of, layers_of(whole)))
    budget = beside_layers(whole) + layer
    some = loaded_from(folder, budget)
    assert some.streaming.streamed == 3
    assert torch.equal(logits(some), logits(whole))
    assert some.streaming.peak <= budget < whole.streaming.peak
    assert some.streaming.resident == beside_layers(whole)


@pytest.mark.parametrize(
    ("layers_in_memory", "streamed", "at_once"),
    [(1, 5, 1), (2, 5, 2), (3, 4, 3), (4, 3, 4), (5, 0, 5)],
)
def test_as_many_layers_stay_as_leave_room_for_two_visitors(
    saved_model: Callable[..., Path], layers_in_memory: int, streamed: int, at_once: int
) -> None:
    folder = saved_model(layers=5)
    beside, layer = beside_layers(loaded_from(folder)), size_of(layers_of(loaded_from(folder))[0])
    loaded = loaded_from(folder, beside + layers_in_memory * layer + layer // 2)
    assert loaded.streaming.streamed == streamed
    logits(loaded)
    assert loaded.streaming.peak == beside + at_once * layer


def test_a_model_that_does_not_fit_layer_by_layer_is_refused_with_what_it_needs(
    saved_model: Callable[..., Path],
) -> None:
    folder = saved_model(layers=3)
    with pytest.raises(InsufficientMemoryError, match=r"device_memory.*got 1000\b") as caught:
        loaded_from(folder, 1000)
    needed = int(re.findall(r"\d+", caught.value.allowed)[0])
    with pytest.raises(InsufficientMemoryError):
        loaded_from(folder, needed - 1)
    logits(loaded_from(folder, needed))


def test_weights_that_change_between_two_passes_are_the_ones_that_come(
    saved_model: Callable[..., Path],
) -> None:
    """The first pass ends before a layer whose copy was fetched ahead; then its weights change."""
    folder = saved_model(layers=4)
    whole = loaded_from(folder)
    budget = beside_layers(whole) + 2 * size_of(layers_of(whole)[0])
    some = loaded_from(folder, budget)
    backbone = some.model.get_submodule(some.family.backbone)
    blocks = Blocks(backbone, layers_of(some), TOKENS)
    blocks.run(2)
    assert some.streaming.resident == budget - size_of(layers_of(some)[0])
    for loaded in (whole, some):
        layers_of(loaded)[2].mlp.down_proj.weight.data.mul_(2)
    with torch.inference_mode():
        final = blocks.forward(TOKENS, 0)
        expected = whole.model.model(input_ids=TOKENS, use_cache=False).last_hidden_state
    assert torch.equal(final, expected)


def test_a_pass_that_fails_leaves_the_weights_on_the_host(saved_model: Callable[..., Path]) -> None:
    folder = saved_model(layers=3)
    whole = loaded_from(folder)
    loaded = loaded_from(folder, beside_layers(whole) + size_of(layers_of(whole)[0]))
    host = [parameter.data_ptr() for parameter in loaded.model.parameters()]
    handle = layers_of(loaded)[1].mlp.register_forward_hook(_fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        logits(loaded)
    assert [parameter.data_ptr() for parameter in loaded.model.parameters()] == host
    assert loaded.streaming.resident == beside_layers(whole)
    handle.remove()
    assert torch.equal(logits(loaded), logits(whole))


def _fail(*_: Any) -> None:
    raise RuntimeError("on purpose")


def test_layers_that_were_cut_stay_where_they_fit_now(saved_model: Callable[..., Path]) -> None:
    folder = saved_model(layers=3)
    whole = loaded_from(folder)
    sizes = [size_of(layer) for layer in layers_of(whole)]
    loaded = loaded_from(folder, beside_layers(whole) + 2 * sizes[0])
    assert loaded.streaming.streamed == 3
    for model in (whole, loaded):
        for gate in gates_of(model.model, model.family, model.widths):
            cut(gate, np.arange(1, gate.units))
    loaded.streaming.place()
    assert loaded.streaming.streamed == 0
    assert loaded.streaming.resident == size_of(loaded.model)
    assert torch.equal(logits(loaded), logits(whole))


def test_a_mask_is_tried_on_layers_that_come_and_go(saved_model: Callable[..., Path]) -> None:
    folder = saved_model(layers=3)
    whole = loaded_from(folder)
    some = loaded_from(folder, beside_layers(whole) + size_of(layers_of(whole)[0]))
    found = []
    for loaded in (whole, some):
        gates = gates_of(loaded.model, loaded.family, loaded.widths)
        with applied(gates, [np.array([0]) for _ in gates]):
            found.append(logits(loaded))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("LlamaForCausalLM", {"preset": "best"}),
        ("LlamaForCausalLM", {"preset": "best", "refit": False, "layout": "uniform"}),
        ("LlamaForCausalLM", {"preset": "paper", "prior": "wanda"}),
        ("Phi3ForCausalLM", {"preset": "paper", "refit": True, "prior": "elimination"}),
        ("Qwen3MoeForCausalLM", {"preset": "best", "experts": "whole"}),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(map(str, value.values())),
)
def test_a_prune_within_a_budget_gives_the_same_bytes(
    saved_model: Callable[..., Path],
    request_for: Callable[..., PruneRequest],
    tmp_path: Path,
    architecture: str,
    settings: dict[str, Any],
) -> None:
    folder = saved_model(architecture, layers=4)
    whole = loaded_from(folder)
    budget = beside_layers(whole) + int(2.5 * max(map(size_of, layers_of(whole))))
    request = request_for(folder, **settings)
    results = [
        prune(
            request,
            tmp_path / str(limit),
            ledger=MemoryLedger(),
            device="cpu",
            device_memory=limit,
        )
        for limit in (None, budget)
    ]
    assert results[1].device_weights <= budget < results[0].device_weights
    assert contents(tmp_path / str(budget)) == contents(tmp_path / "None")
