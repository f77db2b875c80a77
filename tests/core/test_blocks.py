"""Running from a kept layer gives what the whole backbone gives, in every family tried."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bonsai_core import portions
from bonsai_core.blocks import OPENING_WEIGHT, Blocks, Enough
from bonsai_core.config import ModelSource
from bonsai_core.errors import Stopped
from bonsai_core.models import LoadedModel, load
from bonsai_core.shelf import Shelf

SEQUENCES = torch.randint(0, 256, (6, 20), generator=torch.Generator().manual_seed(0))
LAYERS = 4


@pytest.fixture(autouse=True)
def two_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the sequences come in three parts."""
    monkeypatch.setitem(portions.TOKENS, "cpu", 40)


@pytest.fixture
def loaded(saved_model: Callable[..., Path], architecture: str) -> LoadedModel:
    folder = saved_model(architecture, layers=LAYERS)
    return load(ModelSource(source=str(folder)), torch.device("cpu"))


def backbone_of(loaded: LoadedModel) -> nn.Module:
    return loaded.model.get_submodule(loaded.family.backbone)


def layers_of(loaded: LoadedModel) -> nn.ModuleList:
    layers = loaded.model.get_submodule(loaded.family.layers)
    assert isinstance(layers, nn.ModuleList)
    return layers


def blocks_of(loaded: LoadedModel, shelf: Shelf | None = None) -> Blocks:
    return Blocks(backbone_of(loaded), layers_of(loaded), SEQUENCES, shelf)


@torch.inference_mode()
def whole(loaded: LoadedModel) -> Tensor:
    found: Tensor = backbone_of(loaded)(input_ids=SEQUENCES, use_cache=False).last_hidden_state
    return found


@torch.inference_mode()
def from_kept(blocks: Blocks) -> Tensor:
    parts = [blocks.forward(SEQUENCES[first : first + 2], first) for first in range(0, 6, 2)]
    return torch.cat(parts)


@torch.inference_mode()
def test_an_opening_is_what_the_first_token_of_a_sequence_is(loaded: LoadedModel) -> None:
    """It sees nothing but itself, in every family tried, so it can be run alone."""
    layers, backbone = layers_of(loaded), backbone_of(loaded)
    blocks = Blocks(backbone, layers, SEQUENCES, None, SEQUENCES[:, 0])
    blocks.run(LAYERS - 1)
    sequences, openings = blocks.parts[:3], blocks.parts[3:]
    assert [blocks.weight(first) for first in (*sequences, *openings)] == [1.0] * 3 + [
        OPENING_WEIGHT
    ]
    states = torch.cat([require(blocks.states(first)) for first in sequences])
    alone = torch.cat([require(blocks.states(first)) for first in openings])
    assert alone.shape == (6, 1, states.shape[-1])
    assert torch.allclose(states[:, :1], alone, rtol=1e-4, atol=1e-5)


def require(states: Tensor | None) -> Tensor:
    assert states is not None
    return states


@contextmanager
def counted(loaded: LoadedModel) -> Iterator[list[int]]:
    """How often each layer's norm before its attention computes: layers that are passed do not."""
    counts = [0] * LAYERS
    handles = []
    for number, layer in enumerate(layers_of(loaded)):

        def count(*_: object, number: int = number) -> None:
            counts[number] += 1

        handles.append(next(layer.children()).register_forward_hook(count))
    yield counts
    for handle in handles:
        handle.remove()


def change(layer: nn.Module) -> None:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(1.25)


@pytest.mark.parametrize("shelved", [False, True])
def test_final_states_are_those_of_the_whole_backbone_from_every_layer(
    loaded: LoadedModel, tmp_path: Path, shelved: bool
) -> None:
    expected = whole(loaded)
    blocks = blocks_of(loaded, Shelf(tmp_path) if shelved else None)
    for layer in (0, 1, 2, 3, 1, 0, 3):  # onwards, and back
        blocks.advance(layer)
        assert torch.allclose(from_kept(blocks), expected, rtol=0, atol=1e-5), layer


def test_only_the_layers_from_the_kept_one_on_compute(loaded: LoadedModel) -> None:
    blocks = blocks_of(loaded)
    with counted(loaded) as counts:
        blocks.advance(2)
        assert counts == [3, 3, 0, 0]
        for _ in range(2):
            from_kept(blocks)
        assert counts == [3, 3, 6, 6]
        blocks.advance(3)
        assert counts == [3, 3, 9, 6]
        blocks.advance(3)
        assert counts == [3, 3, 9, 6]
        blocks.advance(1)
        assert counts == [6, 3, 9, 6]
        assert blocks.at == 1


def test_a_visit_runs_one_layer_and_keeps_what_was_kept(loaded: LoadedModel) -> None:
    blocks = blocks_of(loaded)
    blocks.advance(1)
    with counted(loaded) as counts:
        blocks.visit()
    assert counts == [0, 3, 0, 0]
    assert blocks.at == 1
    assert torch.allclose(from_kept(blocks), whole(loaded), rtol=0, atol=1e-5)


def test_a_visit_ends_early_where_a_hook_has_heard_enough(loaded: LoadedModel) -> None:
    blocks, heard = blocks_of(loaded), []
    blocks.advance(1)

    def hear(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        heard.append(inputs[0])
        raise Enough

    handle = blocks.layer.register_forward_pre_hook(hear)
    blocks.visit()
    handle.remove()
    assert len(heard) == len(blocks.parts) == 3
    assert torch.allclose(from_kept(blocks), whole(loaded), rtol=0, atol=1e-5)


def test_what_changes_behind_the_kept_layer_is_seen(loaded: LoadedModel) -> None:
    blocks, before = blocks_of(loaded), whole(loaded)
    blocks.advance(2)
    change(layers_of(loaded)[2])
    assert torch.allclose(from_kept(blocks), whole(loaded), rtol=0, atol=1e-5)
    assert not torch.allclose(whole(loaded), before, rtol=0, atol=1e-2)


def test_what_changed_before_it_is_seen_once_forgotten(loaded: LoadedModel) -> None:
    blocks = blocks_of(loaded)
    blocks.advance(2)
    change(layers_of(loaded)[0])
    assert not torch.allclose(from_kept(blocks), whole(loaded), rtol=0, atol=1e-2)
    blocks.forget()
    assert blocks.at == 0
    for layer in (0, 2):
        blocks.advance(layer)
        assert torch.allclose(from_kept(blocks), whole(loaded), rtol=0, atol=1e-5)


def test_running_to_the_end_keeps_nothing(loaded: LoadedModel) -> None:
    blocks, asked = blocks_of(loaded), 0

    def go_on() -> None:
        nonlocal asked
        asked += 1

    with counted(loaded) as counts:
        blocks.run(2, go_on)
        blocks.run(None, go_on)
    assert counts == [3] * LAYERS
    assert asked == 6
    assert blocks.at == 0
    assert torch.allclose(from_kept(blocks), whole(loaded), rtol=0, atol=1e-5)


def test_the_backbone_is_left_as_it_was_also_by_a_stop(loaded: LoadedModel) -> None:
    blocks, expected = blocks_of(loaded), whole(loaded)
    blocks.advance(1)
    from_kept(blocks)
    asked = 0

    def stop() -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise Stopped

    with pytest.raises(Stopped):
        blocks.run(3, stop)
    modules = list(loaded.model.modules())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in modules)
    assert not any("forward" in vars(module) for module in modules)
    assert torch.equal(whole(loaded), expected)
