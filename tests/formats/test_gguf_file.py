"""llama.cpp computes from the file what torch computes from the folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.llama_cpp import llama_cpp
from bonsai_core.errors import InvalidModelError, UnsupportedExportError
from bonsai_core.formats.gguf_file import write_gguf
from bonsai_core.formats.names import WeightType
from tests.formats.pruned_folders import (
    LLAMA3,
    PER_LAYER,
    TOKENS,
    UNIFORM,
    next_token_scores,
    pruned_folder,
)
from tests.tiny_models import VOCABULARY, tiny_model

LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
BIASED: dict[str, Any] = {"attention_bias": True, "mlp_bias": True}
CASES: dict[str, tuple[str, Any, Mapping[str, Any], str]] = {
    "llama": ("LlamaForCausalLM", PER_LAYER, {}, "deci"),
    "llama, tied": ("LlamaForCausalLM", PER_LAYER, {"tied": True}, "deci"),
    "llama, biases": ("LlamaForCausalLM", PER_LAYER, BIASED, "deci"),
    "llama, one group for each head": ("LlamaForCausalLM", PER_LAYER, {"heads": 4}, "deci"),
    "llama 3": ("LlamaForCausalLM", PER_LAYER, {"rope_parameters": LLAMA3}, "deci"),
    "llama, linear rope": ("LlamaForCausalLM", PER_LAYER, {"rope_parameters": LINEAR}, "deci"),
    "llama, uniform": ("LlamaForCausalLM", UNIFORM, {}, "llama"),
    "llama 3, uniform": ("LlamaForCausalLM", UNIFORM, {"rope_parameters": LLAMA3}, "llama"),
    "llama, uniform, biases": ("LlamaForCausalLM", UNIFORM, BIASED, "llama"),
    "mistral": ("MistralForCausalLM", PER_LAYER, {}, "deci"),
    "mistral, uniform": ("MistralForCausalLM", UNIFORM, {}, "llama"),
    "qwen2": ("Qwen2ForCausalLM", PER_LAYER, {}, "deci"),
    "qwen2, uniform": ("Qwen2ForCausalLM", UNIFORM, {}, "deci"),
    "qwen2, channels": ("Qwen2ForCausalLM", ((4, 64),) * 3, {}, "qwen2"),
    "qwen3, tied": ("Qwen3ForCausalLM", PER_LAYER, {"tied": True}, "openelm"),
    "qwen3, uniform": ("Qwen3ForCausalLM", UNIFORM, {}, "qwen3"),
}


@pytest.mark.parametrize("case", CASES)
def test_llama_cpp_computes_the_same(case: str, tmp_path: Path) -> None:
    architecture, widths, settings, written_as = CASES[case]
    folder = pruned_folder(tmp_path, architecture, widths, **settings)
    write_gguf(folder, tmp_path / "model.gguf", WeightType.F32)
    field = gguf.GGUFReader(tmp_path / "model.gguf").fields["general.architecture"]
    assert field.contents() == written_as
    with llama_cpp(tmp_path / "model.gguf") as runtime:
        scores = runtime.next_token_scores(TOKENS, VOCABULARY)
    torch.testing.assert_close(scores, next_token_scores(folder), atol=1e-4, rtol=0)


def test_a_dense_model_can_be_written_too(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "dense")
    write_gguf(folder, tmp_path / "model.gguf", WeightType.F32)
    with llama_cpp(tmp_path / "model.gguf") as runtime:
        scores = runtime.next_token_scores(TOKENS, VOCABULARY)
    torch.testing.assert_close(scores, next_token_scores(folder), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("weights", "tolerance"),
    [(WeightType.F16, 0.05), (WeightType.BF16, 0.3), (WeightType.Q8_0, 1.5)],
)
def test_smaller_numbers_change_little(
    weights: WeightType, tolerance: float, tmp_path: Path
) -> None:
    folder = pruned_folder(tmp_path, "LlamaForCausalLM", ((3, 96), (1, 64), (4, 37)))
    write_gguf(folder, tmp_path / "exact.gguf", WeightType.F32)
    write_gguf(folder, tmp_path / "model.gguf", weights)
    with llama_cpp(tmp_path / "model.gguf") as runtime:
        scores = runtime.next_token_scores(TOKENS, VOCABULARY)
    difference = (scores - next_token_scores(folder)).abs().max()
    assert 0 < difference < tolerance
    sizes = [(tmp_path / name).stat().st_size for name in ("model.gguf", "exact.gguf")]
    assert sizes[0] < 0.65 * sizes[1]


def test_rows_that_do_not_fit_blocks_are_stored_as_f16(tmp_path: Path) -> None:
    folder = pruned_folder(tmp_path, "LlamaForCausalLM", ((3, 96), (1, 37)))
    write_gguf(folder, tmp_path / "model.gguf", WeightType.Q8_0)
    types = {
        tensor.name: tensor.tensor_type.name
        for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors
    }
    assert types["blk.0.ffn_down.weight"] == "Q8_0"
    assert types["blk.1.ffn_down.weight"] == "F16"
    assert types["blk.1.ffn_norm.weight"] == "F32"


def test_context_ends_with_the_window_that_the_model_attends_to(tmp_path: Path) -> None:
    folder = pruned_folder(tmp_path, "MistralForCausalLM", sliding_window=64)
    write_gguf(folder, tmp_path / "model.gguf")
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    assert fields["deci.context_length"].contents() == 64


def refused(folder: Path, tmp_path: Path) -> str:
    with pytest.raises(UnsupportedExportError) as found:
        write_gguf(folder, tmp_path / "model.gguf")
    assert not list(tmp_path.glob("*.gguf*"))
    assert not list(tmp_path.glob(".*"))
    return str(found.value)


@pytest.mark.parametrize("architecture", ["GPT2LMHeadModel", "Gemma3ForCausalLM"])
def test_other_families_are_refused(architecture: str, tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "dense", architecture)
    assert "llama, mistral, qwen2, qwen3" in refused(folder, tmp_path)


def test_what_no_architecture_computes_is_refused(tmp_path: Path) -> None:
    untied = pruned_folder(tmp_path / "untied", "Qwen3ForCausalLM")
    assert "a head of its own" in refused(untied, tmp_path)
    biased = pruned_folder(tmp_path / "biased", "Qwen3ForCausalLM", tied=True, attention_bias=True)
    assert "biases" in refused(biased, tmp_path)
    gelu = pruned_folder(tmp_path / "gelu", "LlamaForCausalLM", hidden_act="gelu")
    assert "activation is silu" in refused(gelu, tmp_path)
    yarn = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0}
    stretched = pruned_folder(tmp_path / "yarn", "LlamaForCausalLM", rope_parameters=yarn)
    assert "rope_type" in refused(stretched, tmp_path)


def test_a_layer_without_channels_is_refused(tmp_path: Path) -> None:
    """llama.cpp would compute such a layer wrongly, or end."""
    folder = pruned_folder(tmp_path, "LlamaForCausalLM")
    config = json.loads((folder / "config.json").read_text())
    config["per_layer_config"]["1"]["intermediate_size"] = 0
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidModelError, match="at least one"):
        write_gguf(folder, tmp_path / "model.gguf")


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidModelError, match=r"no config\.json"):
        write_gguf(tmp_path / "empty", tmp_path / "model.gguf")
    folder = tiny_model(tmp_path / "dense")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InvalidModelError, match="no safetensors"):
        write_gguf(folder, tmp_path / "model.gguf")


def test_rows_of_the_embedding_beyond_the_tokens_are_kept(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "dense")
    tensors = load_file(folder / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.cat([tensors[name], tensors[name][:5] / 2])
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"vocab_size": VOCABULARY + 5}
    (folder / "config.json").write_text(json.dumps(config))
    write_gguf(folder, tmp_path / "model.gguf", WeightType.F32)
    with llama_cpp(tmp_path / "model.gguf") as runtime:
        scores = runtime.next_token_scores(TOKENS, VOCABULARY + 5)
    torch.testing.assert_close(scores, next_token_scores(folder), atol=1e-4, rtol=0)
