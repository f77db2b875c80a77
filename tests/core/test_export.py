"""What is written is the live model: same logits, counted sizes, a stock model where one fits."""

import json
import math
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from bonsai_core.config import ModelSource, PruneRequest
from bonsai_core.errors import PruneError
from bonsai_core.folders import require_free
from bonsai_core.models import load, load_saved, parameters
from bonsai_core.registration import register
from tests.core.conftest import contents, umask
from tests.core.pruned import CPU, RECORD, UTILITIES, Pruned, RequestFor
from tests.tiny_models import tiny_model

TOKENS = torch.arange(60).reshape(3, 20) * 4


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(TOKENS).logits


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def test_a_uniform_result_says_its_sizes_in_a_stock_config(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path, architecture: str
) -> None:
    folder = saved_model(architecture, groups=4, heads=8, head_dim=4)
    Pruned(folder, request_for(folder)).cut(lambda _: 2, lambda _: 16).save(tmp_path / "out")
    config = config_of(tmp_path / "out")
    assert config["architectures"] == [architecture]
    assert "auto_map" not in config
    assert (config["num_key_value_heads"], config["num_attention_heads"]) == (2, 4)
    assert (config["intermediate_size"], config["head_dim"]) == (16, 4)
    assert not (tmp_path / "out" / "modeling_bonsai.py").exists()


def test_code_that_the_dense_model_named_is_not_named_by_the_result(
    request_for: RequestFor, tmp_path: Path
) -> None:
    folder = tiny_model(tmp_path / "model", "Phi3ForCausalLM")
    config = config_of(folder) | {"auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    pruned = Pruned(folder, request_for(folder)).cut(lambda _: 1, lambda _: 16)
    pruned.save(tmp_path / "out")
    assert "auto_map" not in config_of(tmp_path / "out")


@pytest.mark.parametrize("uniform", [True, False])
def test_the_counts_are_those_of_the_files(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path, uniform: bool
) -> None:
    folder = saved_model("Qwen2ForCausalLM", tied=True)
    pruned = Pruned(folder, request_for(folder)).cut(
        lambda i: 1 if uniform else 1 + i, lambda _: 10
    )
    saved = pruned.save(tmp_path / "out")
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        sizes = {name: math.prod(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert saved.parameters == sum(sizes.values()) == parameters(pruned.loaded.model)
    rest = sum(sizes.values()) - sizes["model.embed_tokens.weight"]
    assert saved.non_embedding_parameters == rest
    assert saved.sparsity == (pruned.before - rest) / pruned.before


def test_llama_heads_that_do_not_divide_the_hidden_size_become_mistral(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500.0,
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    folder = saved_model(groups=4, rope_parameters=rope)
    pruned = Pruned(folder, request_for(folder)).cut(lambda _: 3, lambda _: 20)
    pruned.save(tmp_path / "out")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    config = config_of(tmp_path / "out")
    assert config["model_type"] == "mistral"
    assert config["architectures"] == ["MistralForCausalLM"] == [type(again).__name__]
    assert config["num_attention_heads"] == 3
    assert config["sliding_window"] is None
    assert torch.allclose(logits(again), logits(pruned.loaded.model), rtol=0, atol=1e-6)
    # A result of the stand-in can be evaluated, and pruned again.
    load_saved(ModelSource(source=str(tmp_path / "out")), CPU)
    assert load(ModelSource(source=str(tmp_path / "out")), CPU).widths.groups == 3


@pytest.mark.parametrize(
    ("architecture", "options"),
    [("LlamaForCausalLM", {"attention_bias": True}), ("Gemma2ForCausalLM", {})],
)
def test_what_no_stock_class_can_hold_is_saved_all_the_same(
    saved_model: Callable[..., Path],
    request_for: RequestFor,
    tmp_path: Path,
    architecture: str,
    options: dict[str, Any],
) -> None:
    folder = saved_model(architecture, groups=4, **options)
    pruned = Pruned(folder, request_for(folder)).cut(lambda _: 3, lambda _: 20)
    pruned.save(tmp_path / "out")
    register()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.allclose(logits(again), logits(pruned.loaded.model), rtol=0, atol=1e-6)


@pytest.mark.parametrize("uniform", [True, False])
def test_a_head_of_its_own_is_kept_whatever_the_config_says(
    request_for: RequestFor, tmp_path: Path, uniform: bool
) -> None:
    folder = tiny_model(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = config_of(folder) | {"tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    pruned = Pruned(folder, request_for(folder)).cut(
        lambda i: 1 if uniform else 1 + i, lambda _: 10
    )
    pruned.save(tmp_path / "out")
    again = load_saved(ModelSource(source=str(tmp_path / "out")), CPU).model
    assert torch.allclose(logits(again), logits(pruned.loaded.model), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_number_format_of_the_weights_stays(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path, dtype: torch.dtype
) -> None:
    folder = saved_model()
    pruned = Pruned(folder, request_for(folder)).cut(lambda _: 1, lambda _: 16)
    pruned.loaded.model.to(dtype)
    pruned.save(tmp_path / "out")
    assert config_of(tmp_path / "out")["dtype"] == str(dtype).removeprefix("torch.")
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {dtype}
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == dtype


def test_the_folder_has_all_that_a_user_needs_with_ordinary_permissions(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    folder = saved_model()
    Pruned(folder, request_for(folder)).cut(lambda i: 1 + i, lambda _: 16).save(tmp_path / "out")
    assert set(contents(tmp_path / "out")) == {
        "README.md",
        "bonsai.json",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "modeling_bonsai.py",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert modes == {0o666 & ~umask()}
    text = "A tree, pruned."
    tokenizers = [AutoTokenizer.from_pretrained(path) for path in (folder, tmp_path / "out")]
    assert tokenizers[0](text)["input_ids"] == tokenizers[1](text)["input_ids"]


def test_bonsai_json_tells_how_the_model_was_made(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    folder = saved_model()
    request = request_for(folder)
    pruned = Pruned(folder, request).cut(lambda _: 1, lambda _: 3)
    saved = pruned.save(tmp_path / "out")
    told = json.loads((tmp_path / "out" / "bonsai.json").read_text())
    assert PruneRequest.model_validate(told["request"]) == request
    assert told["kept"]["0.mlp"] == [0, 24, 47]
    assert told["kept"]["1.attention"] == [0]
    assert told["non_embedding_parameters"] == saved.non_embedding_parameters
    assert told["non_embedding_parameters_before"] == pruned.before
    assert told["source_sha256"] == pruned.loaded.digest
    assert told["rounds"] == [RECORD.model_dump(mode="json")]
    assert (told["perplexity"]["before"], told["perplexity"]["after"]) == (10.0, 12.0)
    assert told["perplexity"]["protocol"]["windows"] == request.trial_samples
    assert told["utilities"] == {"before": UTILITIES[0], "after": UTILITIES[1]}
    assert told["versions"]["transformers"]


def test_saving_twice_gives_the_same_bytes(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    folder = saved_model()
    pruned = Pruned(folder, request_for(folder)).cut(lambda i: 1 + i, lambda _: 16)
    pruned.save(tmp_path / "first")
    pruned.save(tmp_path / "second")
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_what_a_crash_left_is_swept_away(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    folder = saved_model()
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "model-00001-of-00009.safetensors").write_text("half")
    (tmp_path / "out").mkdir()
    Pruned(folder, request_for(folder)).cut(lambda i: 1 + i, lambda _: 16).save(tmp_path / "out")
    assert "model-00001-of-00009.safetensors" not in contents(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_only_a_folder_that_is_free_is_written_to(tmp_path: Path) -> None:
    require_free(tmp_path / "new" / "folder")
    (tmp_path / "empty").mkdir()
    require_free(tmp_path / "empty")
    (tmp_path / "file").touch()
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(PruneError, match="something is there already") as caught:
            require_free(taken)
        assert (caught.value.field, caught.value.value) == ("output", str(taken))
        assert caught.value.cure
