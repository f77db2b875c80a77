"""A folder with widths per layer, in the hands of those who generate, train, adapt and quantise."""

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from bonsai_core.modeling_bonsai import Experts
from bonsai_core.registration import register
from tests.formats.pruned_folders import pruned_folder
from tests.tiny_models import ARCHITECTURES

TOKENS = torch.randint(5, 250, (2, 22), generator=torch.Generator().manual_seed(1))
CASES: list[tuple[str, dict[str, Any]]] = [
    *((architecture, {}) for architecture in ARCHITECTURES),
    ("MistralForCausalLM", {"sliding_window": 8}),
    ("Qwen3ForCausalLM", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
]
STATIC = {"cache_implementation": "static", "disable_compile": True}
CHUNKED = {"prefill_chunk_size": 5}
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(
    scope="module", params=CASES, ids=[" ".join([name, *settings]) for name, settings in CASES]
)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    architecture, settings = request.param
    return pruned_folder(tmp_path_factory.mktemp("in_use"), architecture, **settings)


def loaded(folder: Path, **settings: Any) -> Any:
    register()
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **settings).eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(TOKENS, use_cache=False).logits


def loss_of(model: Any) -> torch.Tensor:
    return model(TOKENS, labels=TOKENS, use_cache=False).loss


def written(model: Any, **settings: Any) -> list[list[int]]:
    return model.generate(
        TOKENS, max_new_tokens=8, do_sample=False, eos_token_id=None, **settings
    ).tolist()


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def test_every_cache_writes_the_same_tokens_with_the_prompt_whole_or_in_chunks(
    folder: Path,
) -> None:
    model = loaded(folder)
    expected = written(model, use_cache=False)
    # A static cache may be kept for the next call: first the way that makes it by itself.
    assert written(model, **STATIC, **CHUNKED) == expected
    assert written(model, **STATIC) == expected
    assert written(model, **CHUNKED) == expected
    assert written(model) == expected


def test_gradient_checkpointing_changes_neither_loss_nor_gradients(folder: Path) -> None:
    model = loaded(folder).train()
    state = torch.get_rng_state()

    def step() -> tuple[float, dict[str, torch.Tensor]]:
        torch.set_rng_state(state)  # the same dropout
        model.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss.item(), {name: value.grad.clone() for name, value in model.named_parameters()}

    loss, gradients = step()
    model.gradient_checkpointing_enable()
    layers = model.base_model.get_submodule(model.family.layers)
    assert all(layer.gradient_checkpointing for layer in layers)
    again, checkpointed = step()
    assert again == pytest.approx(loss, rel=1e-6)
    for name, gradient in checkpointed.items():
        assert torch.isfinite(gradient).all(), name
        assert torch.allclose(gradient, gradients[name], atol=1e-5), name


def test_an_expert_without_a_token_gets_a_gradient_of_zero() -> None:
    # Where gradients are averaged over processes, a missing one is an error.
    experts = Experts(8, [4, 3, 5], nn.SiLU()).train()
    chosen = torch.tensor([[0, 2], [2, 0]])
    experts(torch.ones(2, 8), chosen, torch.ones(2, 2)).sum().backward()
    assert all(parameter.grad.any() for parameter in experts[0].parameters())
    assert not any(parameter.grad.any() for parameter in experts[1].parameters())


@pytest.mark.parametrize(
    "folder", [("LlamaForCausalLM", {}), ("Qwen2ForCausalLM", {})], indirect=True, ids=str
)
def test_an_adapter_finds_all_projections_of_every_layer(folder: Path) -> None:
    adapted = get_peft_model(loaded(folder), LoraConfig(r=4, target_modules=PROJECTIONS))
    factors = [name for name, value in adapted.named_parameters() if value.requires_grad]
    assert len(factors) == 2 * 3 * len(PROJECTIONS)


def test_an_adapter_is_trained_saved_loaded_and_merged(folder: Path, tmp_path: Path) -> None:
    settings = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(loaded(folder), settings)
    before = loss_of(adapted).item()
    factors = [value for value in adapted.parameters() if value.requires_grad]
    optimiser = torch.optim.AdamW(factors, lr=1e-3)
    for _ in range(2):  # the first moves only the half that begins at zero
        optimiser.zero_grad()
        loss_of(adapted).backward()
        optimiser.step()
    assert loss_of(adapted).item() < before
    expected = logits(adapted)
    adapted.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(loaded(folder), tmp_path)
    assert difference(logits(again), expected) < 1e-5
    merged = again.merge_and_unload()
    assert type(merged) is type(loaded(folder))
    assert difference(logits(merged), expected) < 1e-4


def test_linear_layers_say_the_shape_of_their_weights(folder: Path) -> None:
    # By these numbers quantisers and adapters build what they put in their place.
    for name, module in loaded(folder).named_modules():
        if isinstance(module, nn.Linear):
            assert (module.out_features, module.in_features) == module.weight.shape, name
        if isinstance(module, Conv1D):
            assert (module.nx, module.nf) == module.weight.shape, name


def test_a_quantiser_replaces_each_linear_layer_by_one_that_computes_the_same(folder: Path) -> None:
    eight = loaded(folder, quantization_config=BitsAndBytesConfig(load_in_8bit=True))
    plain = loaded(folder)
    assert replaced(eight, Linear8bitLt) == linear_layers(plain)
    assert difference(logits(eight), logits(plain)) < 0.2  # it rounds activations, too
    four = loaded(folder, quantization_config=BitsAndBytesConfig(load_in_4bit=True))
    assert replaced(four, Linear4bit) == linear_layers(plain)
    for name in replaced(four, Linear4bit):
        # On CPUs with bfloat16 of their own it packs blocks of 32 by 64, and tiny layers have less.
        four.get_submodule(name).support_avx512bf16_for_cpu = False
    assert difference(logits(four), logits(rounded_as(four, plain))) < 1e-5


def linear_layers(model: Any) -> set[str]:
    """All but the head; not Falcon's, a kind of its own that stock quantisers leave alone."""
    head = model.get_output_embeddings()
    return {
        name
        for name, module in model.named_modules()
        if type(module) in (nn.Linear, Conv1D) and module is not head
    }


def replaced(model: Any, kind: type[nn.Module]) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, kind)}


@torch.no_grad()
def rounded_as(quantised: Any, plain: Any) -> Any:
    """The plain model with the weights that the quantised one multiplies by."""
    for name in replaced(quantised, Linear4bit):
        weight = quantised.get_submodule(name).weight
        rounded = dequantize_4bit(weight.data, weight.quant_state)
        module = plain.get_submodule(name)
        module.weight.copy_(rounded.T if isinstance(module, Conv1D) else rounded)
    return plain
