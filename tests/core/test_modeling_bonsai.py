"""A pruned folder gives the live model's logits, with and without our package, in every family."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    CTRLConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from bonsai_core import modeling_bonsai
from bonsai_core.heterogeneous import heterogeneous_config, save_heterogeneous
from bonsai_core.modeling_bonsai import FAMILIES, auto_map, classes_of
from bonsai_core.registration import register

HEAD_DIM = 8
SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": HEAD_DIM,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
}
# Query heads kept, key-value heads kept, channels kept. The first layer loses channels only, the
# second a whole group and nearly all channels, the third one query head of each group.
KEPT: list[tuple[list[int], list[int], list[int]]] = [
    ([0, 1, 2, 3], [0, 1], list(range(0, 48, 2))),
    ([2, 3], [1], [7]),
    ([1, 2], [0, 1], list(range(5, 42))),
]


def widths_of(*layers: tuple[int, int, int]) -> list[dict[str, int]]:
    """Widths as a config names them: query heads, key-value heads and channels of each layer."""
    names = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
    return [dict(zip(names, layer, strict=True)) for layer in layers]


WIDTHS = widths_of(*((len(heads), len(groups), len(mlp)) for heads, groups, mlp in KEPT))


@dataclass(frozen=True)
class Case:
    """A family to test: its stock classes, and the settings that make it different."""

    config_class: Callable[..., Any]
    model_class: Callable[..., Any]
    settings: dict[str, Any]


LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CASES = {
    "llama": Case(LlamaConfig, LlamaForCausalLM, {"rope_parameters": LLAMA3_ROPE}),
    "mistral": Case(MistralConfig, MistralForCausalLM, {"sliding_window": 6}),
    "qwen2": Case(Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True}),
    "qwen3": Case(
        Qwen3Config,
        Qwen3ForCausalLM,
        {
            "tie_word_embeddings": True,
            "use_sliding_window": True,
            "sliding_window": 6,
            "max_window_layers": 1,
        },
    ),
}


def dense_model(family: str, **settings: Any) -> Any:
    """A tiny dense model; weights and biases large enough that a mistake shows in the logits."""
    case = CASES[family]
    model = case.model_class(case.config_class(**SIZES | case.settings | settings)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return model


def keep(linear: nn.Linear, rows: Sequence[int] | None, columns: Sequence[int] | None) -> None:
    if rows is not None:
        linear.weight = nn.Parameter(linear.weight.data[list(rows)])
        linear.out_features = len(rows)
        if linear.bias is not None:
            linear.bias = nn.Parameter(linear.bias.data[list(rows)])
    if columns is not None:
        linear.weight = nn.Parameter(linear.weight.data[:, list(columns)])
        linear.in_features = len(columns)


def sliced_model(family: str, **settings: Any) -> Any:
    """The dense model, its layers cut to `KEPT`."""
    model = dense_model(family, **settings)

    def rows_of(heads: Sequence[int]) -> list[int]:
        return [head * HEAD_DIM + row for head in heads for row in range(HEAD_DIM)]

    for layer, (heads, groups, channels) in zip(model.model.layers, KEPT, strict=True):
        attention, mlp = layer.self_attn, layer.mlp
        keep(attention.q_proj, rows_of(heads), None)
        keep(attention.k_proj, rows_of(groups), None)
        keep(attention.v_proj, rows_of(groups), None)
        keep(attention.o_proj, None, rows_of(heads))
        attention.num_key_value_groups = len(heads) // len(groups)
        keep(mlp.gate_proj, channels, None)
        keep(mlp.up_proj, channels, None)
        keep(mlp.down_proj, None, channels)
    model.generation_config.max_length = 77
    return model


def made_widths(model: Any) -> list[dict[str, int]]:
    """The widths of a model's layers, read from the shapes of its modules."""
    return widths_of(
        *(
            (
                layer.self_attn.q_proj.out_features // HEAD_DIM,
                layer.self_attn.k_proj.out_features // HEAD_DIM,
                layer.mlp.down_proj.in_features,
            )
            for layer in model.model.layers
        )
    )


def tokens() -> torch.Tensor:
    return torch.randint(2, 96, (2, 13), generator=torch.Generator().manual_seed(1))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(tokens()).logits


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


@pytest.fixture(scope="module", params=list(CASES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def live(family: str) -> Any:
    return sliced_model(family)


@pytest.fixture(scope="module")
def folder(live: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pruned") / "model"
    save_heterogeneous(live, WIDTHS, path)
    return path


@pytest.fixture
def reloaded(folder: Path) -> Any:
    register()
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def test_the_folder_says_all_that_a_reader_needs(family: str, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == f"bonsai_{family}"
    assert config["head_dim"] == HEAD_DIM
    assert config["dtype"] == "float32"
    assert config["auto_map"] == auto_map(f"bonsai_{family}")
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForCausalLM"}
    assert config["architectures"] == [
        config["auto_map"]["AutoModelForCausalLM"].removeprefix("modeling_bonsai.")
    ]
    # Upstream's form: only what differs from the dense model, whose widths are the global ones.
    assert config["num_attention_heads"] == 4
    assert config["per_layer_config"] == {
        "0": {"intermediate_size": 24},
        "1": {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 1},
        "2": {"num_attention_heads": 2, "intermediate_size": 37},
    }
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "modeling_bonsai.py",
    }
    assert json.loads((folder / "generation_config.json").read_text())["max_length"] == 77


def test_the_tensors_have_their_standard_names(live: Any, folder: Path) -> None:
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = set(file.keys())
    expected = set(live.state_dict())
    if live.config.tie_word_embeddings:
        expected.remove("lm_head.weight")
    assert names == expected


REMOTE = """
import sys
sys.modules["bonsai_core"] = None  # any import of our package fails, installed or not
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM

folder, inputs, outputs, again = sys.argv[1:]
tokens = load_file(inputs)["tokens"]

def load(auto_class, where):
    model = auto_class.from_pretrained(where, trust_remote_code=True).eval()
    assert type(model).__module__.startswith("transformers_modules."), type(model).__module__
    return model

with torch.no_grad():
    model = load(AutoModelForCausalLM, folder)
    model.save_pretrained(again)
    save_file(
        {
            "logits": model(tokens).logits,
            "hidden": load(AutoModel, folder)(tokens).last_hidden_state,
            "again": load(AutoModelForCausalLM, again)(tokens).logits,
        },
        outputs,
    )
"""


@pytest.mark.parametrize("family", ["qwen3"], indirect=True)
def test_remote_code_is_enough_without_our_package(live: Any, folder: Path, tmp_path: Path) -> None:
    inputs, outputs = tmp_path / "inputs.safetensors", tmp_path / "outputs.safetensors"
    save_file({"tokens": tokens()}, inputs)
    arguments = [str(path) for path in (folder, inputs, outputs, tmp_path / "again")]
    finished = subprocess.run(
        [sys.executable, "-I", "-c", REMOTE, *arguments],
        cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    answer = load_file(outputs)
    assert torch.allclose(answer["logits"], logits(live), rtol=0, atol=1e-6)
    assert torch.allclose(answer["again"], logits(live), rtol=0, atol=1e-6)
    with torch.no_grad():
        hidden = live.model(tokens()).last_hidden_state
    assert torch.allclose(answer["hidden"], hidden, rtol=0, atol=1e-6)
    assert digests(tmp_path / "again") == digests(folder)


LOADED = """
import sys
{imports}
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
print(type(model).__name__, model.model.layers[1].mlp.down_proj.in_features)
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import bonsai_core; from transformers import AutoModelForCausalLM",
        "from transformers import AutoModelForCausalLM; import bonsai_core",
        "import bonsai_core.pruner; from transformers import AutoModelForCausalLM",
    ],
)
def test_importing_the_package_registers_the_classes(imports: str, tmp_path: Path) -> None:
    save_heterogeneous(sliced_model("llama"), WIDTHS, tmp_path / "model")
    finished = subprocess.run(
        [sys.executable, "-c", LOADED.format(imports=imports), tmp_path / "model"],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")},
        stdin=subprocess.DEVNULL,  # nobody to say yes to code from the folder
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == ["BonsaiLlamaForCausalLM", "1"]
    assert not (tmp_path / "modules").exists()


def test_registered_classes_load_without_remote_code(
    family: str, live: Any, reloaded: Any, folder: Path
) -> None:
    register()  # a second time
    assert type(reloaded) is classes_of(f"bonsai_{family}").AutoModelForCausalLM
    assert torch.allclose(logits(reloaded), logits(live), rtol=0, atol=1e-6)
    assert made_widths(reloaded) == WIDTHS
    # Our classes also win over those beside the weights.
    trusting = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    assert type(trusting) is type(reloaded)
    backbone = AutoModel.from_pretrained(folder).eval()
    assert type(backbone) is classes_of(f"bonsai_{family}").AutoModel
    with torch.no_grad():
        expected = live.model(tokens()).last_hidden_state
        assert torch.allclose(backbone(tokens()).last_hidden_state, expected, rtol=0, atol=1e-6)


def test_parameters_and_modules_are_those_of_the_live_model(live: Any, reloaded: Any) -> None:
    assert reloaded.num_parameters() == live.num_parameters()

    def linears(model: Any) -> dict[str, tuple[int, int]]:
        return {
            name: (module.in_features, module.out_features)
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear)
        }

    assert linears(reloaded) == linears(live)
    tied = reloaded.lm_head.weight is reloaded.model.embed_tokens.weight
    assert tied == live.config.tie_word_embeddings


def test_every_cache_generates_the_same(live: Any, reloaded: Any) -> None:
    def generate(model: Any, **settings: Any) -> list[list[int]]:
        return model.generate(
            tokens(), max_new_tokens=8, max_length=None, do_sample=False, **settings
        ).tolist()

    expected = generate(live, use_cache=False)
    assert generate(reloaded, use_cache=False) == expected
    assert generate(reloaded) == expected
    static = {"cache_implementation": "static", "disable_compile": True}
    assert generate(reloaded, **static) == expected
    assert generate(reloaded, **static, prefill_chunk_size=4) == expected


def test_attention_implementations_agree(folder: Path, reloaded: Any) -> None:
    assert reloaded.config._attn_implementation == "sdpa"
    sdpa = logits(reloaded)
    reloaded.set_attn_implementation("eager")
    # Only the eager implementation gives weights back, so they show that the switch arrived.
    with torch.no_grad():
        attentions = reloaded(tokens(), output_attentions=True).attentions
    assert [weights.shape[1] for weights in attentions] == [4, 2, 2]
    assert torch.allclose(logits(reloaded), sdpa, rtol=0, atol=1e-5)
    eager = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    assert torch.allclose(logits(eager), sdpa, rtol=0, atol=1e-5)


def test_training_with_gradient_checkpointing(reloaded: Any) -> None:
    def gradients() -> dict[str, torch.Tensor]:
        reloaded.zero_grad()
        reloaded(tokens(), labels=tokens(), use_cache=False).loss.backward()
        return {name: value.grad.clone() for name, value in reloaded.named_parameters()}

    reloaded.train()
    plain = gradients()
    reloaded.gradient_checkpointing_enable()
    assert all(layer.gradient_checkpointing for layer in reloaded.model.layers)
    checkpointed = gradients()
    for name, gradient in checkpointed.items():
        assert torch.isfinite(gradient).all(), name
        assert torch.allclose(gradient, plain[name], atol=1e-5), name


def test_saving_a_loaded_model_again_writes_the_same_folder(
    folder: Path, reloaded: Any, tmp_path: Path
) -> None:
    reloaded.save_pretrained(tmp_path / "stock")
    assert digests(tmp_path / "stock") == digests(folder)
    save_heterogeneous(reloaded, WIDTHS, tmp_path / "ours")
    assert digests(tmp_path / "ours") == digests(folder)


def test_saving_twice_gives_the_same_bytes_and_changes_nothing(
    family: str, folder: Path, tmp_path: Path
) -> None:
    model = sliced_model(family)
    pointers = {name: value.data_ptr() for name, value in model.named_parameters()}
    config, generation = model.config.to_dict(), model.generation_config.to_dict()
    before, seed_state = logits(model), torch.get_rng_state()
    save_heterogeneous(model, WIDTHS, tmp_path / "again")
    assert torch.equal(torch.get_rng_state(), seed_state)
    assert digests(tmp_path / "again") == digests(folder)
    assert model.config.to_dict() == config
    assert model.generation_config.to_dict() == generation
    assert {name: value.data_ptr() for name, value in model.named_parameters()} == pointers
    assert torch.equal(logits(model), before)


def test_the_number_format_is_carried_over(family: str, tmp_path: Path) -> None:
    register()
    model = sliced_model(family)
    for parameter in model.parameters():
        # Not `model.to`, which would also round the rotary frequencies; loading never does.
        parameter.data = parameter.data.to(torch.bfloat16)
    save_heterogeneous(model, WIDTHS, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert again.dtype == torch.bfloat16
    assert torch.equal(logits(again), logits(model))


def test_a_model_can_be_made_from_its_config_alone(family: str) -> None:
    register()
    dense = dense_model(family).config
    config = heterogeneous_config(dense, WIDTHS)
    assert not dense.is_heterogeneous
    model = AutoModelForCausalLM.from_config(config)
    assert made_widths(model) == WIDTHS
    assert torch.isfinite(logits(model)).all()
    with pytest.raises(RuntimeError, match="per-layer attribute"):
        _ = config.num_attention_heads


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 2.0},
        {"rope_type": "dynamic", "factor": 2.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
        {
            "rope_type": "longrope",
            "short_factor": [1.0] * (HEAD_DIM // 2),
            "long_factor": [2.0] * (HEAD_DIM // 2),
            "factor": 4.0,
            "original_max_position_embeddings": 8,
        },
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_every_kind_of_rope_loads(rope: dict[str, Any], tmp_path: Path) -> None:
    # Some read the number of heads although they do not need it.
    register()
    model = sliced_model(
        "llama", rope_parameters={"rope_theta": 10000.0} | rope, max_position_embeddings=8
    )
    save_heterogeneous(model, WIDTHS, tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.allclose(logits(again), logits(model), rtol=0, atol=1e-6)


def test_a_head_that_is_no_longer_tied_is_kept(tmp_path: Path) -> None:
    register()
    model = sliced_model("qwen2")
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach() * 2)
    save_heterogeneous(model, WIDTHS, tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.allclose(logits(again), logits(model), rtol=0, atol=1e-6)


def test_zero_padded_layer_keys_are_read(tmp_path: Path) -> None:
    register()
    dense = LlamaConfig(**SIZES | {"num_hidden_layers": 11})
    widths = widths_of(*((4, 2, 48 - index) for index in range(11)))
    heterogeneous_config(dense, widths).save_pretrained(tmp_path)
    assert "03" in json.loads((tmp_path / "config.json").read_text())["per_layer_config"]
    config = AutoConfig.from_pretrained(tmp_path)
    assert [layer.intermediate_size for layer in config.per_layer_config] == [
        layer["intermediate_size"] for layer in widths
    ]


def test_the_head_size_is_said_when_the_dense_config_leaves_it_out() -> None:
    dense = Qwen2Config(**{key: value for key, value in SIZES.items() if key != "head_dim"})
    assert heterogeneous_config(dense, WIDTHS).head_dim == 8


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ([(4, 2, 48), (4, 2, 0), (4, 2, 48)], r"per_layer_config\[1\].intermediate_size is 0"),
        ([(0, 0, 48), (4, 2, 48), (4, 2, 48)], r"per_layer_config\[0\].num_attention_heads is 0"),
        ([(4, 2, 48), (4, 2, 48), (3, 2, 48)], "must be a multiple of num_key_value_heads"),
        ([(4, 2, 48)], "1 layers, but the config's num_hidden_layers is 3"),
    ],
)
def test_impossible_widths_are_refused(widths: list[tuple[int, int, int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        heterogeneous_config(LlamaConfig(**SIZES), widths_of(*widths))


def test_widths_of_other_names_are_refused() -> None:
    with pytest.raises(ValueError, match="layer 0 are n_inner; needed: num_attention_heads"):
        heterogeneous_config(LlamaConfig(**SIZES), [{"n_inner": 48}] * 3)


def test_a_config_file_with_impossible_widths_is_refused() -> None:
    config_class = classes_of("bonsai_llama").AutoConfig
    with pytest.raises(Exception, match="must be a multiple"):
        config_class(**SIZES, per_layer_config={"1": {"num_attention_heads": 3}})


def test_another_family_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'ctrl'.*llama, mistral, qwen2, qwen3"):
        heterogeneous_config(CTRLConfig(), [])


def test_every_class_is_an_attribute_of_the_module_and_no_other_name_is() -> None:
    for model_type in FAMILIES:
        for auto_class, path in auto_map(model_type).items():
            found = getattr(modeling_bonsai, path.removeprefix("modeling_bonsai."))
            assert found is getattr(classes_of(model_type), auto_class)
            assert f"{modeling_bonsai.MODULE_NAME}.{found.__name__}" == path
    with pytest.raises(AttributeError, match="BonsaiOtherModel"):
        _ = modeling_bonsai.BonsaiOtherModel


def test_weights_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    model = sliced_model("llama")
    keep(model.model.layers[0].mlp.up_proj, range(5), None)
    with pytest.raises(RuntimeError, match=r"layers\.0\.mlp\.up_proj\.weight"):
        save_heterogeneous(model, WIDTHS, tmp_path)
