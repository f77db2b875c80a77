"""Masks cover the candidates in pairs, follow the prior, and trying one leaves nothing behind."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from bonsai_core.config import ModelSource
from bonsai_core.gates import gates_of
from bonsai_core.masks import applied, draw, split
from bonsai_core.models import LoadedModel, load
from bonsai_core.seeds import generator

SCORES = [np.array([5.0, 1.0, 2.0, 9.0, 3.0]), np.array([1.0, 1.0]), np.array([4.0, 0.5, 0.1])]
CANDIDATES = [np.array([0, 1, 2, 4]), np.array([], dtype=np.int64), np.array([0, 1, 2])]


def drawn(masks: int = 400, seed: int = 0) -> np.ndarray:
    return draw(CANDIDATES, SCORES, masks, generator(seed, 1, "masks"))


def test_each_mask_and_its_complement_cover_the_candidates_once() -> None:
    masks = drawn()
    assert masks.shape == (400, 7)
    assert (masks[0::2] ^ masks[1::2]).all()


def test_half_of_the_candidates_of_each_gate_go_and_an_odd_one_by_chance() -> None:
    masks = drawn()
    assert set(masks[:, :4].sum(axis=1)) == {2}
    assert set(masks[:, 4:].sum(axis=1)) == {1, 2}


def test_weak_candidates_go_more_often_and_the_strongest_still_sometimes() -> None:
    first = drawn(4000)[0::2]
    frequency = first[:, :4].mean(axis=0)  # scores 5, 1, 2, 3
    assert frequency[1] > frequency[2] > frequency[3] > frequency[0] > 0


def test_equal_scores_are_drawn_alike() -> None:
    masks = draw([np.arange(6)], [np.zeros(6)], 4000, generator(0, 1, "masks"))[0::2]
    np.testing.assert_allclose(masks.mean(axis=0), 0.5, atol=0.05)


def test_the_seed_decides_the_masks() -> None:
    assert (drawn(seed=3) == drawn(seed=3)).all()
    assert (drawn(seed=3) != drawn(seed=4)).any()


def test_splitting_a_mask_gives_the_units_of_each_gate() -> None:
    mask = np.array([1, 0, 0, 1, 0, 1, 1], dtype=bool)
    assert [units.tolist() for units in split(mask, CANDIDATES)] == [[0, 4], [], [1, 2]]


@pytest.fixture(scope="module")
def loaded(saved_model: Callable[..., Path]) -> LoadedModel:
    return load(ModelSource(source=str(saved_model())), torch.device("cpu"))


def logits(model: Any) -> torch.Tensor:
    tokens = torch.arange(12).reshape(2, 6)
    with torch.inference_mode():
        return model(tokens).logits


def test_a_tried_mask_leaves_nothing_behind(loaded: LoadedModel) -> None:
    gates = gates_of(loaded.model, loaded.family, loaded.widths)
    before, state = (
        logits(loaded.model),
        {k: v.clone() for k, v in loaded.model.state_dict().items()},
    )
    absent = [np.array([0]) for _ in gates]
    with applied(gates, absent):
        assert not torch.equal(logits(loaded.model), before)
    assert torch.equal(logits(loaded.model), before)
    assert all(torch.equal(value, state[k]) for k, value in loaded.model.state_dict().items())
    modules = list(loaded.model.modules())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in modules)


def test_a_mask_is_taken_off_when_the_forward_pass_fails(loaded: LoadedModel) -> None:
    gates = gates_of(loaded.model, loaded.family, loaded.widths)
    with pytest.raises(RuntimeError), applied(gates, [np.array([0]) for _ in gates]):
        raise RuntimeError
    modules = list(loaded.model.modules())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in modules)


@pytest.mark.parametrize("fails", [False, True])
def test_zeros_in_the_input_and_in_the_projection_are_the_same_to_the_last_bit(
    loaded: LoadedModel, fails: bool
) -> None:
    gate = gates_of(loaded.model, loaded.family, loaded.widths)[1]
    whole, units = gate.output.weight.data, np.array([1, 5, 9])
    few = torch.randn(gate.output.out_features, gate.output.in_features)
    many = torch.cat([few, -few])
    seen: list[torch.Tensor] = []

    def look(*_: Any) -> None:
        seen.append(gate.output.weight.data)
        if fails and len(seen) == 2:
            raise RuntimeError

    def without(inputs: torch.Tensor) -> torch.Tensor:
        zeroed = inputs.clone()
        zeroed[:, units] = 0
        return functional.linear(zeroed, whole, gate.output.bias)

    with torch.inference_mode(), applied([gate], [units]):
        handle = gate.output.register_forward_pre_hook(look)
        assert torch.equal(gate.output(few), without(few))
        with pytest.raises(RuntimeError) if fails else nullcontext():
            assert torch.equal(gate.output(many), without(many))
        assert torch.equal(gate.output.weight, whole)
        handle.remove()
    assert torch.equal(seen[0], whole)
    assert not seen[1][:, units].any()


def test_a_gate_that_lacks_nothing_is_not_touched(loaded: LoadedModel) -> None:
    gates = gates_of(loaded.model, loaded.family, loaded.widths)
    absent = [np.array([0]), *(np.array([], dtype=np.int64) for _ in gates[1:])]
    with applied(gates, absent):
        assert gates[0].output._forward_pre_hooks
        assert not any(gate.output._forward_pre_hooks for gate in gates[1:])
