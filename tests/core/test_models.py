"""Whatever a model comes from, it loads as the same thing, or is refused with the cure."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bonsai_core.config import DType, ModelSource
from bonsai_core.errors import (
    InvalidModelError,
    PruneError,
    UnavailableDeviceError,
    UnsupportedModelError,
)
from bonsai_core.models import (
    LoadedModel,
    device_named,
    load,
    load_saved,
    locate,
    non_embedding_parameters,
    parameters,
)
from tests.tiny_models import VOCABULARY, tiny_model, tiny_tokenizer

CPU = torch.device("cpu")
TOKENS = torch.arange(40).reshape(2, 20)


def loaded_from(folder: Path | str, **options: Any) -> LoadedModel:
    return load(ModelSource(source=str(folder), **options), CPU)


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    return model(TOKENS).logits


@pytest.fixture
def copy(saved_model: Callable[..., Path], tmp_path: Path) -> Path:
    """A model folder that a test may damage."""
    return Path(shutil.copytree(saved_model(), tmp_path / "model"))


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_model_loads_ready_for_pruning(
    saved_model: Callable[..., Path], architecture: str
) -> None:
    loaded = loaded_from(saved_model(architecture))
    assert loaded.family.architecture == architecture
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.model.config._attn_implementation == loaded.family.attention
    widths = loaded.widths
    assert (widths.groups, widths.query_rows, widths.head_rows) == (2, 16, 8)
    assert (widths.layers, widths.hidden, widths.channels) == (2, 32, 48)


@pytest.mark.parametrize("tied", [False, True])
def test_embeddings_are_left_out_of_the_count(saved_model: Callable[..., Path], tied: bool) -> None:
    model = loaded_from(saved_model(tied=tied)).model
    embeddings = VOCABULARY * 32 * (1 if tied else 2)
    assert parameters(model) - non_embedding_parameters(model) == embeddings


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.BFLOAT16, DType.FLOAT16])
def test_the_number_format_is_the_one_asked_for(
    saved_model: Callable[..., Path], dtype: DType
) -> None:
    assert loaded_from(saved_model(), dtype=dtype).dtype == getattr(torch, dtype)


def test_auto_keeps_the_number_format_of_the_files(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "model")
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    assert loaded_from(folder).dtype == torch.bfloat16


def test_loading_draws_no_random_numbers(saved_model: Callable[..., Path]) -> None:
    folder, state = saved_model(), torch.get_rng_state()
    loaded_from(folder)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_digest_follows_weights_and_config(copy: Path) -> None:
    first = loaded_from(copy).digest
    assert loaded_from(copy).digest == first
    edit_weights(copy, lambda weights: weights["model.norm.weight"].add_(1))
    second = loaded_from(copy).digest
    edit_config(copy, rms_norm_eps=1e-3)
    assert len({first, second, loaded_from(copy).digest}) == 3


def test_a_relative_path_is_a_folder_if_there_is_one(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy.parent)
    monkeypatch.setenv("HOME", str(copy.parent))
    for source in ("model", "./model", "~/model", str(copy)):
        assert locate(ModelSource(source=source)) == copy.resolve()
    with pytest.raises(InvalidModelError, match="a revision belongs to a hub id") as caught:
        locate(ModelSource(source="model", revision="main"))
    assert caught.value.field == "model.revision"


def test_files_in_the_hubs_cache_are_of_a_commit(copy: Path, tmp_path: Path) -> None:
    assert loaded_from(copy).revision is None
    snapshot = tmp_path / "models--owner--name" / "snapshots" / f"{7:040x}"
    snapshot.parent.mkdir(parents=True)
    copy.rename(snapshot)
    assert loaded_from(snapshot).revision == snapshot.name


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match="there is no such folder") as caught:
        locate(ModelSource(source=str(tmp_path / "none")))
    assert caught.value.value == str(tmp_path / "none")


@pytest.mark.parametrize("source", ["nobody/no-such-model", "models/of/mine"])
def test_a_hub_id_out_of_reach_names_the_cure(
    source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidModelError, match="hub does not give it") as caught:
        locate(ModelSource(source=source))
    assert caught.value.value == source
    assert "owner/name" in caught.value.allowed
    assert "without a network" in caught.value.cure


def cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no config": lambda folder: (folder / "config.json").unlink(),
    "no JSON in the config": lambda folder: (folder / "config.json").write_text("{"),
    "a size that is a word": lambda folder: edit_config(folder, hidden_size="wide"),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "weights cut off": cut_off,
    "pickled weights only": lambda folder: (folder / "model.safetensors").rename(
        folder / "pytorch_model.bin"
    ),
    "a tensor missing": lambda folder: edit_weights(
        folder, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight")
    ),
    "a tensor of another shape": lambda folder: edit_weights(
        folder, lambda weights: weights.update({"model.norm.weight": torch.ones(5)})
    ),
    "no tokenizer": lambda folder: [path.unlink() for path in folder.glob("tokenizer*")],
    "a broken tokenizer": lambda folder: (folder / "tokenizer.json").write_text("{}"),
    "code of its own": lambda folder: edit_config(
        folder, model_type="own", auto_map={"AutoConfig": "own.OwnConfig"}
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused_by_name(copy: Path, damage: str) -> None:
    DAMAGES[damage](copy)
    with pytest.raises(InvalidModelError) as caught:
        loaded_from(copy)
    assert caught.value.field == "model.source"
    assert caught.value.value == str(copy)
    assert caught.value.cure


def test_missing_weights_are_named(copy: Path) -> None:
    DAMAGES["a tensor missing"](copy)
    with pytest.raises(InvalidModelError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        loaded_from(copy)


def test_another_architecture_is_refused_before_its_weights_are_read(copy: Path) -> None:
    edit_config(copy, architectures=["CTRLLMHeadModel"], model_type="ctrl")
    (copy / "model.safetensors").unlink()
    with pytest.raises(UnsupportedModelError, match="CTRLLMHeadModel"):
        loaded_from(copy)


def test_a_saved_model_of_another_family_is_refused(copy: Path) -> None:
    edit_config(copy, architectures=["GemmaForCausalLM"], model_type="gemma")
    with pytest.raises(PruneError):
        load_saved(ModelSource(source=str(copy)), CPU)


@pytest.mark.parametrize("name", ["quantum", "cpu:1", "cuda:99", "mps", ""])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(UnavailableDeviceError, match="allowed: auto, cpu") as caught:
        device_named(name)
    assert caught.value.field == "device"
    assert caught.value.value == name


def test_auto_finds_a_device() -> None:
    assert device_named("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert device_named("cpu") == CPU


def rotary_order(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows as GGUF keeps them: the two halves of each head's rotary pairs interleaved."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.transpose(1, 2).reshape(rows, columns)


def write_gguf(dense: Path, path: Path) -> None:
    """The dense Llama folder as one GGUF file in float32."""
    weights = load_file(dense / "model.safetensors")
    config = json.loads((dense / "config.json").read_text())
    tokenizer = tiny_tokenizer()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    tokens = tokenizer.convert_ids_to_tokens(range(VOCABULARY))
    # A tokenizer of this kind needs a merge, so the padding token gives way to a merged one.
    tokens[-1] = tokens[0] + tokens[1]
    writer.add_token_list(tokens)
    writer.add_token_merges([f"{tokens[0]} {tokens[1]}"])
    special = [gguf.TokenType.CONTROL] * 2
    writer.add_token_types([gguf.TokenType.NORMAL] * 256 + special + [gguf.TokenType.NORMAL])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, weight in weights.items():
        stored = weight
        if name.endswith("q_proj.weight"):
            stored = rotary_order(weight, config["num_attention_heads"])
        elif name.endswith("k_proj.weight"):
            stored = rotary_order(weight, config["num_key_value_heads"])
        stem = names.get_name(name.removesuffix(".weight"))
        writer.add_tensor(f"{stem}.weight", stored.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_loads_as_the_model_it_was_made_of(
    saved_model: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    dense = saved_model()
    write_gguf(dense, tmp_path / "model.gguf")
    capfd.readouterr()
    loaded = loaded_from(tmp_path, gguf_file="model.gguf")
    assert "it/s" not in capfd.readouterr().err
    assert loaded.family.architecture == "LlamaForCausalLM"
    assert loaded.dtype == torch.float32
    expected = logits(loaded_from(dense).model)
    assert torch.allclose(logits(loaded.model), expected, rtol=0, atol=1e-4)
    text = "The same text, the same tokens."
    assert loaded.tokenizer(text)["input_ids"][-5:] == tiny_tokenizer()(text)["input_ids"][-5:]


def test_a_gguf_file_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "other.gguf").touch()
    with pytest.raises(InvalidModelError, match=r"allowed: other\.gguf") as caught:
        loaded_from(tmp_path, gguf_file="model.gguf")
    assert caught.value.field == "model.gguf_file"


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"not a model")
    with pytest.raises(InvalidModelError):
        loaded_from(tmp_path, gguf_file="model.gguf")
