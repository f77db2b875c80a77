"""What holds for every family: one contract, for each architecture and its variants."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bonsai_core.calibration import calibration_batch
from bonsai_core.config import DType, ModelSource, PruneRequest
from bonsai_core.errors import UnreachableTargetError
from bonsai_core.evaluation import mean_nll, perplexity_of
from bonsai_core.export import save_model
from bonsai_core.families import (
    FAMILIES,
    ExpertUnits,
    GateKind,
    embedding_parameters,
    non_embedding_parameters,
    reachable_sparsity,
    unit_price,
)
from bonsai_core.gates import Gate, gates_of
from bonsai_core.ledger import MemoryLedger
from bonsai_core.masks import applied
from bonsai_core.models import LoadedModel, load, load_saved
from bonsai_core.models import embedding_parameters as embedding_parameters_of
from bonsai_core.models import non_embedding_parameters as counted
from bonsai_core.pruner import prune
from bonsai_core.registration import register
from bonsai_core.surgery import cut
from bonsai_core.utilities.divergence import KlUtility
from bonsai_core.utilities.utility import LiveModel
from tests.tiny_models import ARCHITECTURES, tiny_tokenizer

CPU = torch.device("cpu")
TOKENS = torch.arange(60).reshape(3, 20) * 4

# What a config may say that changes sizes, biases, norms or the order of attention and MLP.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((architecture, {}) for architecture in ARCHITECTURES),
    ("LlamaForCausalLM", {"attention_bias": True, "mlp_bias": True}),
    ("MistralForCausalLM", {"sliding_window": 8, "groups": 4, "tied": True}),
    ("Qwen3ForCausalLM", {"attention_bias": True, "tied": True}),
    ("Qwen2ForCausalLM", {"groups": 4, "tied": True}),
    ("Qwen2ForCausalLM", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    ("Gemma2ForCausalLM", {"groups": 1, "tied": True}),
    ("Gemma3ForCausalLM", {"groups": 4, "attention_bias": True, "tied": True}),
    ("Phi3ForCausalLM", {"groups": 1, "tied": True}),
    ("Phi3ForCausalLM", {"groups": 4}),
    ("Olmo2ForCausalLM", {"attention_bias": True, "groups": 4}),
    ("GraniteForCausalLM", {"attention_bias": True, "mlp_bias": True, "tied": True}),
    ("StableLmForCausalLM", {"use_qkv_bias": True, "qk_layernorm": True}),
    ("StableLmForCausalLM", {"use_parallel_residual": True, "groups": 4, "tied": True}),
    ("GPT2LMHeadModel", {"tied": True, "n_inner": None}),
    ("OPTForCausalLM", {"tied": True, "do_layer_norm_before": False, "word_embed_proj_dim": 16}),
    ("OPTForCausalLM", {"enable_bias": False, "layer_norm_elementwise_affine": False}),
    ("GPTNeoXForCausalLM", {"attention_bias": False, "use_parallel_residual": False}),
    ("FalconForCausalLM", {"new_decoder_architecture": True, "tied": True}),
    ("FalconForCausalLM", {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1}),
    (
        "FalconForCausalLM",
        {"multi_query": False, "parallel_attn": False, "bias": True, "alibi": True, "groups": 4},
    ),
    ("MixtralForCausalLM", {"tied": True, "groups": 4, "sliding_window": 8}),
    ("Qwen2MoeForCausalLM", {"qkv_bias": False, "mlp_only_layers": [1]}),
    ("Qwen3MoeForCausalLM", {"attention_bias": True, "decoder_sparse_step": 2}),
    ("MixtralForCausalLM", {"experts": "whole"}),
    ("Qwen2MoeForCausalLM", {"experts": "whole", "norm_topk_prob": True, "mlp_only_layers": [1]}),
    ("Qwen3MoeForCausalLM", {"experts": "whole", "num_experts": 6, "num_experts_per_tok": 3}),
    ("BloomForCausalLM", {"tied": True, "apply_residual_connection_post_layernorm": True}),
]


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(TOKENS).logits


@dataclass
class Pruned:
    """A live model to be cut and saved."""

    loaded: LoadedModel
    gates: list[Gate]

    def cut(self, groups: Callable[[int], int], channels: Callable[[int], int]) -> "Pruned":
        """Cut each layer to so many groups, or experts, and channels, spread over the gate."""
        for gate in self.gates:
            left = (channels if gate.kind is GateKind.MLP else groups)(gate.layer)
            keep = np.linspace(0, gate.units - 1, left).round().astype(np.int64)
            cut(gate, np.setdiff1d(np.arange(gate.units), keep))
        return self

    def save(self, folder: Path) -> None:
        save_model(self.loaded, self.gates, folder)


def loaded_from(folder: Path, experts: ExpertUnits = ExpertUnits.CHANNELS) -> Pruned:
    loaded = load(ModelSource(source=str(folder)), CPU)
    return Pruned(loaded, gates_of(loaded.model, loaded.family, loaded.widths, experts))


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def some_units(gates: list[Gate]) -> list[np.ndarray]:
    """A different part of each gate; nothing of the first, all but one of the last."""
    random = np.random.default_rng(0)
    counts = [(gate.units - 1) * number // (len(gates) - 1) for number, gate in enumerate(gates)]
    return [
        np.sort(random.choice(gate.units, size=count, replace=False)).astype(np.int64)
        for gate, count in zip(gates, counts, strict=True)
    ]


def test_every_family_has_a_tiny_model() -> None:
    assert set(ARCHITECTURES) == set(FAMILIES)


@pytest.mark.parametrize("layout", ["per_layer", "uniform"])
@pytest.mark.parametrize(
    "architecture", ["GPT2LMHeadModel", "BloomForCausalLM", "Qwen2MoeForCausalLM"]
)
def test_a_family_with_fixed_parts_is_pruned_as_far_as_is_said(
    saved_model: Callable[..., Path],
    request_for: Callable[..., PruneRequest],
    tmp_path: Path,
    architecture: str,
    layout: str,
) -> None:
    folder = saved_model(architecture, layers=3)
    reachable = reachable_sparsity(config_of(folder), 16)
    request = request_for(folder, reachable, layout=layout, align=16, sparsity_per_round=0.5)
    result = prune(request, tmp_path / "out", ledger=MemoryLedger(), device="cpu")
    assert result.sparsity == pytest.approx(reachable)
    again = load_saved(ModelSource(source=str(tmp_path / "out")), CPU)
    tokens = calibration_batch(request.calibration, tiny_tokenizer(), request.pruning.seed)
    nll = mean_nll(again.model, again.family, tokens)
    assert perplexity_of(nll) == pytest.approx(result.perplexity, rel=1e-4)
    with pytest.raises(UnreachableTargetError, match=rf"of {architecture} is never pruned"):
        prune(request_for(folder, 0.9), tmp_path / "no", ledger=MemoryLedger(), device="cpu")


class Watched:
    """The default utility, from the live model that is being pruned, which it keeps in sight."""

    live: LiveModel

    def __call__(self, live: LiveModel, sequences: torch.Tensor, _: Mapping[str, Any]) -> KlUtility:
        self.live = live
        return KlUtility(live, sequences, {})


def require_saved(watched: Watched, folder: Path) -> dict[str, Any]:
    """The config of a result that has the live model's logits, and generates."""
    register()
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.allclose(logits(again), logits(watched.live.model), rtol=0, atol=1e-5)
    assert again.generate(TOKENS[:1], max_new_tokens=4, do_sample=False).shape == (1, 24)
    return config_of(folder)


@pytest.mark.parametrize("layout", ["per_layer", "uniform"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_default_prune_of_every_family_saves_its_live_model(
    saved_model: Callable[..., Path],
    request_for: Callable[..., PruneRequest],
    tmp_path: Path,
    architecture: str,
    layout: str,
) -> None:
    folder, watched = saved_model(architecture, layers=3), Watched()
    sparsity = 0.6 * reachable_sparsity(config_of(folder), 1)
    # Aligned, for that is what stock mixtures need.
    settings = {"preset": "best", "utility": "watched", "layout": layout, "align": 8}
    request = request_for(folder, sparsity, **settings)
    result = prune(
        request,
        tmp_path / "out",
        ledger=MemoryLedger(),
        device="cpu",
        utilities={"watched": watched},
    )
    assert result.sparsity >= sparsity
    config = require_saved(watched, tmp_path / "out")
    stock = layout == "uniform" and FAMILIES[architecture].keys.channels
    assert not stock or config["architectures"] == [architecture]


@pytest.mark.parametrize("layout", ["per_layer", "uniform"])
@pytest.mark.parametrize("preset", ["statistics", "paper", "best"])
@pytest.mark.parametrize("experts", ["channels", "whole"])
@pytest.mark.parametrize(
    "architecture", ["MixtralForCausalLM", "Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM"]
)
def test_every_preset_prunes_a_mixture_by_either_unit(
    saved_model: Callable[..., Path],
    request_for: Callable[..., PruneRequest],
    tmp_path: Path,
    architecture: str,
    experts: str,
    preset: str,
    layout: str,
) -> None:
    folder, watched = saved_model(architecture, layers=3), Watched()
    settings = {"preset": preset, "refit": preset != "paper", "experts": experts, "layout": layout}
    result = prune(
        request_for(folder, 0.5, utility="watched", align=8, **settings),
        tmp_path / "out",
        ledger=MemoryLedger(),
        device="cpu",
        utilities={"watched": watched},
    )
    assert result.sparsity >= 0.5
    config = require_saved(watched, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "bonsai.json").read_text())
    kept = {name: len(units) for name, units in manifest["kept"].items()}
    assert any(("experts" if experts == "whole" else "mlp") in name for name in kept)
    if layout == "uniform":
        assert config["architectures"] == [architecture]
        names = FAMILIES[architecture].keys.experts
        left = next(config[name] for name in names if name in config)
        assert {number for name, number in kept.items() if name.endswith("experts")} <= {left}
        assert config["num_experts_per_tok"] <= left


@torch.no_grad()
def model_with_an_idle_expert(source: Path, folder: Path) -> Path:
    """The last of five experts is never among the two best: two others are above zero, always."""
    model = AutoModelForCausalLM.from_pretrained(source)
    for layer in model.model.layers:
        rows = layer.mlp.gate.weight
        rows[1], rows[3], rows[4] = -rows[0], -rows[2], 0
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("experts", ["channels", "whole"])
def test_an_expert_that_no_token_takes_goes_without_loss(
    saved_model: Callable[..., Path],
    request_for: Callable[..., PruneRequest],
    tmp_path: Path,
    experts: str,
) -> None:
    source = saved_model("MixtralForCausalLM", num_local_experts=5)
    folder = model_with_an_idle_expert(source, tmp_path / "model")
    watched = Watched()
    prune(
        request_for(folder, 0.16, preset="best", utility="watched", experts=experts),
        tmp_path / "out",
        ledger=MemoryLedger(),
        device="cpu",
        utilities={"watched": watched},
    )
    require_saved(watched, tmp_path / "out")
    kept = json.loads((tmp_path / "out" / "bonsai.json").read_text())["kept"]
    if experts == "whole":
        assert any(4 not in kept[f"{layer}.experts"] for layer in range(2))
    else:
        idle, busy = kept["0.mlp.4"], kept["0.mlp.0"]
        assert len(idle) < len(busy)


def test_experts_that_stock_kernels_do_not_take_are_saved_all_the_same(
    saved_model: Callable[..., Path], tmp_path: Path
) -> None:
    pruned = loaded_from(saved_model("MixtralForCausalLM")).cut(lambda _: 1, lambda _: 18)
    pruned.save(tmp_path / "out")
    register()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert again.config.model_type == "bonsai_mixtral"
    assert torch.allclose(logits(again), logits(pruned.loaded.model), rtol=0, atol=1e-5)


def test_heads_that_no_stock_config_may_say_are_saved_all_the_same(
    saved_model: Callable[..., Path], tmp_path: Path
) -> None:
    # Phi-3 checks the length of its rotary factors against the hidden size by the heads.
    factors = {"short_factor": [1.0, 1.0], "long_factor": [2.0, 4.0]}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "partial_rotary_factor": 0.5} | factors
    folder = saved_model(
        "Phi3ForCausalLM", rope_parameters=rope, original_max_position_embeddings=16
    )
    pruned = loaded_from(folder).cut(lambda _: 1, lambda _: 16)
    pruned.save(tmp_path / "out")
    register()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.allclose(logits(again), logits(pruned.loaded.model), rtol=0, atol=1e-5)


# The classes beside the weights, not ours; one process for all families, because each starts torch.
REMOTE = """
import sys
sys.modules["bonsai_core"] = None  # any import of our package fails, installed or not
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

tokens, results = load_file(sys.argv[1])["tokens"], {}
for folder in sys.argv[3:]:
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
    assert type(model).__module__.startswith("transformers_modules."), type(model).__module__
    with torch.no_grad():
        results[folder] = model(tokens).logits
save_file(results, sys.argv[2])
"""


def test_remote_code_is_enough_for_every_family(
    saved_model: Callable[..., Path], tmp_path: Path
) -> None:
    expected: dict[str, torch.Tensor] = {}
    for architecture in ARCHITECTURES:
        folder = saved_model(architecture, layers=3)
        pruned = loaded_from(folder).cut(lambda i: 1 + i % 2, lambda i: 7 + 20 * i)
        pruned.save(tmp_path / architecture)
        expected[str(tmp_path / architecture)] = logits(pruned.loaded.model)
    inputs, outputs = tmp_path / "inputs.safetensors", tmp_path / "outputs.safetensors"
    save_file({"tokens": TOKENS}, inputs)
    finished = subprocess.run(
        [sys.executable, "-I", "-c", REMOTE, str(inputs), str(outputs), *expected],
        cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    found = load_file(outputs)
    for folder_name, values in expected.items():
        assert torch.allclose(found[folder_name], values, rtol=0, atol=1e-5), folder_name


@pytest.mark.parametrize(
    ("architecture", "options"),
    VARIANTS,
    ids=[" ".join([name, *map(str, options)]) for name, options in VARIANTS],
)
class TestFamily:
    """The contract. Whoever adds a family adds a tiny model, and all of this runs for it."""

    @pytest.fixture
    def folder(
        self, saved_model: Callable[..., Path], architecture: str, options: dict[str, Any]
    ) -> Path:
        settings = {name: value for name, value in options.items() if name != "experts"}
        return saved_model(architecture, layers=3, **{"groups": 2} | settings)

    @pytest.fixture
    def experts(self, options: dict[str, Any]) -> ExpertUnits:
        return ExpertUnits(options.get("experts", "channels"))

    @pytest.fixture
    def pruned(self, folder: Path, experts: ExpertUnits) -> Pruned:
        return loaded_from(folder, experts)

    @pytest.fixture
    def loaded(self, pruned: Pruned) -> LoadedModel:
        return pruned.loaded

    @pytest.fixture
    def gates(self, pruned: Pruned) -> list[Gate]:
        return pruned.gates

    def test_it_loads_as_stock_transformers_does(
        self, folder: Path, loaded: LoadedModel, architecture: str
    ) -> None:
        assert loaded.family.architecture == architecture
        assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
        stock = AutoModelForCausalLM.from_pretrained(folder)
        assert torch.allclose(logits(loaded.model), logits(stock), rtol=0, atol=1e-4)

    def test_it_rounds_as_stock_transformers_does(self, folder: Path) -> None:
        loaded = load(ModelSource(source=str(folder), dtype=DType.BFLOAT16), CPU)
        stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        # A rounding elsewhere would send tokens to other experts.
        difference = (logits(loaded.model) - logits(stock)).abs().mean()
        assert difference < 1e-3

    def test_its_negative_log_likelihood_is_that_of_its_logits(self, loaded: LoadedModel) -> None:
        expected = torch.nn.functional.cross_entropy(
            logits(loaded.model)[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten()
        )
        assert mean_nll(loaded.model, loaded.family, TOKENS) == pytest.approx(expected.item(), 1e-4)

    def test_cut_logits_are_the_masked_logits(self, loaded: LoadedModel, gates: list[Gate]) -> None:
        absent, dense = some_units(gates), logits(loaded.model)
        with applied(gates, absent):
            masked = logits(loaded.model)
        assert (masked - dense).abs().mean() > 0.01
        for gate, units in zip(gates, absent, strict=True):
            cut(gate, units)
        assert torch.allclose(logits(loaded.model), masked, rtol=0, atol=1e-4)

    def test_prices_and_totals_are_what_the_weights_hold(
        self, folder: Path, loaded: LoadedModel, gates: list[Gate], experts: ExpertUnits
    ) -> None:
        config, before = config_of(folder), counted(loaded.model)
        assert non_embedding_parameters(config) == before
        assert embedding_parameters(config) == embedding_parameters_of(loaded.model)
        absent = some_units(gates)
        returned = sum(cut(gate, units) for gate, units in zip(gates, absent, strict=True))
        assert before - counted(loaded.model) == returned
        prices = {
            p.kind: unit_price(p, loaded.widths, config) for p in loaded.family.gates(experts)
        }
        assert {gate.kind: gate.price for gate in gates} == prices
        assert [gate.layer for gate in gates] == sorted(gate.layer for gate in gates)

    def test_reachable_is_what_removing_everything_gives(
        self, folder: Path, loaded: LoadedModel, gates: list[Gate], experts: ExpertUnits
    ) -> None:
        before, align = counted(loaded.model), 20
        for gate in gates:
            cut(gate, gate.kept[align if gate.kind is GateKind.MLP else 1 :])
        reached = 1 - counted(loaded.model) / before
        said = reachable_sparsity(config_of(folder), align, experts)
        assert said == pytest.approx(reached, abs=1e-12)

    def test_a_uniform_result_is_a_stock_model(
        self, architecture: str, pruned: Pruned, tmp_path: Path
    ) -> None:
        pruned.cut(lambda _: 1, lambda _: 16)
        pruned.save(tmp_path / "out")
        config = config_of(tmp_path / "out")
        if not FAMILIES[architecture].keys.channels:
            assert config["model_type"].startswith("bonsai_")  # no stock config says the width
            register()
        else:
            assert config["architectures"] == [architecture]
            assert "auto_map" not in config
        self._is_pruned(pruned, tmp_path / "out")

    def test_a_result_with_widths_per_layer(self, pruned: Pruned, tmp_path: Path) -> None:
        pruned.cut(lambda i: 1 + i % 2, lambda i: 7 + 20 * i)
        if pruned.gates[-1].kind is GateKind.MLP:
            cut(pruned.gates[-1], np.array([2, 3]))  # the experts of one layer may differ too
        pruned.save(tmp_path / "out")
        register()
        assert "auto_map" in config_of(tmp_path / "out")
        self._is_pruned(pruned, tmp_path / "out")

    def test_every_layer_follows_a_change_of_attention(
        self, pruned: Pruned, tmp_path: Path
    ) -> None:
        pruned.cut(lambda i: 1 + i % 2, lambda _: 9)
        pruned.save(tmp_path / "out")
        register()
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        again.set_attn_implementation("eager")
        pruned.loaded.model.set_attn_implementation("eager")
        assert torch.allclose(logits(again), logits(pruned.loaded.model), rtol=0, atol=1e-4)

    @staticmethod
    def _is_pruned(pruned: Pruned, folder: Path) -> None:
        """The folder gives the live model's logits, loads with our loader, and generates."""
        again = AutoModelForCausalLM.from_pretrained(folder).eval()
        assert torch.allclose(logits(again), logits(pruned.loaded.model), rtol=0, atol=1e-5)
        assert counted(again) == counted(pruned.loaded.model)
        assert load_saved(ModelSource(source=str(folder)), CPU).family is pruned.loaded.family
        generate = partial(again.generate, TOKENS[:1], max_new_tokens=4, do_sample=False)
        assert generate(use_cache=True).tolist() == generate(use_cache=False).tolist()
