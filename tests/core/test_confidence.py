"""One factor for all logits lies in the last norm, and the best one is found."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bonsai_core.confidence import FinalNorm, choose
from bonsai_core.config import ModelSource
from bonsai_core.models import LoadedModel, load
from bonsai_core.recipes.probes import CONFIDENCES
from tests.tiny_models import ARCHITECTURES

TOKENS = torch.arange(40).reshape(2, 20) * 6


def loaded_from(folder: Path) -> LoadedModel:
    return load(ModelSource(source=str(folder)), torch.device("cpu"))


def norm_of(loaded: LoadedModel) -> FinalNorm:
    norm = FinalNorm.of(loaded.model, loaded.family)
    assert norm is not None
    return norm


@torch.inference_mode()
def final_states(loaded: LoadedModel) -> torch.Tensor:
    backbone = loaded.model.get_submodule(loaded.family.backbone)
    found: torch.Tensor = backbone(input_ids=TOKENS, use_cache=False).last_hidden_state
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_norm_of_every_family_scales_what_goes_to_the_head(
    saved_model: Callable[..., Path], architecture: str
) -> None:
    loaded = loaded_from(saved_model(architecture))
    before, state = final_states(loaded), dict(loaded.model.named_parameters())
    state = {name: value.clone() for name, value in state.items()}
    norm = norm_of(loaded)
    for factor in (0.8, 1.1):
        norm.scale(factor)
        assert torch.allclose(final_states(loaded), factor * before, rtol=1e-5, atol=1e-5)
    changed = [
        name
        for name, value in loaded.model.named_parameters()
        if not torch.equal(value, state[name])
    ]
    assert len(changed) == len(norm.weights())
    norm.scale(1.0)
    assert torch.allclose(final_states(loaded), before, rtol=1e-6, atol=1e-6)


def test_a_ledger_gives_the_norm_back_to_the_last_bit(saved_model: Callable[..., Path]) -> None:
    loaded = loaded_from(saved_model("GPT2LMHeadModel"))
    norm = norm_of(loaded)
    norm.scale(0.91)
    kept, states = norm.weights(), final_states(loaded)
    norm.scale(1.06)
    norm_of(loaded).take({})
    assert not torch.equal(final_states(loaded), states)
    norm_of(loaded).take(kept)
    assert torch.equal(final_states(loaded), states)


def test_a_model_without_a_last_norm_has_none(saved_model: Callable[..., Path]) -> None:
    loaded = loaded_from(saved_model("OPTForCausalLM", do_layer_norm_before=False))
    assert FinalNorm.of(loaded.model, loaded.family) is None


@pytest.mark.parametrize("best", CONFIDENCES)
def test_the_best_factor_is_found_and_stays(saved_model: Callable[..., Path], best: float) -> None:
    loaded = loaded_from(saved_model())
    length = final_states(loaded).norm()

    def measure() -> float:
        return -abs(float(final_states(loaded).norm() / length) - best)

    assert choose(norm_of(loaded), measure) == best
    assert float(final_states(loaded).norm() / length) == pytest.approx(best)


def test_what_makes_no_difference_changes_nothing(saved_model: Callable[..., Path]) -> None:
    loaded = loaded_from(saved_model())
    before = final_states(loaded)
    assert choose(norm_of(loaded), lambda: 0.5) == 1.0
    assert torch.equal(final_states(loaded), before)
