"""What follows from a config alone is what the weights say: sizes, prices, reach."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bonsai_core.config import ModelSource
from bonsai_core.errors import (
    InvalidCalibrationError,
    InvalidModelError,
    UnreachableTargetError,
    UnsupportedModelError,
)
from bonsai_core.families import (
    FAMILIES,
    GateKind,
    family_of,
    reachable_sparsity,
    require_context,
    require_reachable,
    widths_of,
)
from bonsai_core.gates import gates_of
from bonsai_core.models import load, non_embedding_parameters
from bonsai_core.surgery import cut
from tests.tiny_models import ARCHITECTURES

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
}


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


BIASES: list[tuple[str, dict[str, Any]]] = [
    *((architecture, {}) for architecture in ARCHITECTURES),
    ("LlamaForCausalLM", {"attention_bias": True, "mlp_bias": True}),
    ("Qwen3ForCausalLM", {"attention_bias": True}),
]


@pytest.mark.parametrize(("architecture", "options"), BIASES)
@pytest.mark.parametrize("align", [1, 16, 20])
def test_reachable_sparsity_is_what_removing_everything_gives(
    saved_model: Callable[..., Path], architecture: str, options: dict[str, Any], align: int
) -> None:
    folder = saved_model(architecture, **options)
    loaded = load(ModelSource(source=str(folder)), torch.device("cpu"))
    before = non_embedding_parameters(loaded.model)
    for gate in gates_of(loaded.model, loaded.family, loaded.widths):
        left = 1 if gate.kind is GateKind.ATTENTION else align
        cut(gate, gate.kept[left:])
    reached = 1 - non_embedding_parameters(loaded.model) / before
    assert reachable_sparsity(config_of(folder), align) == pytest.approx(reached, abs=1e-12)


def test_every_family_is_tested() -> None:
    assert set(ARCHITECTURES) == set(FAMILIES)


def test_a_config_without_groups_or_head_size_means_one_group_per_head() -> None:
    widths = widths_of({key: CONFIG[key] for key in CONFIG if key != "num_key_value_heads"})
    assert (widths.groups, widths.query_rows, widths.head_rows) == (4, 16, 16)


def test_another_architecture_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"GPT2LMHeadModel.*allowed: LlamaFor"
    ) as caught:
        family_of({"architectures": ["GPT2LMHeadModel"]})
    assert caught.value.field == "model.source"
    assert caught.value.cure
    with pytest.raises(UnsupportedModelError, match="model_type 'mamba', no architectures"):
        family_of({"model_type": "mamba"})


def test_a_model_pruned_per_layer_is_refused_as_such() -> None:
    with pytest.raises(UnsupportedModelError, match="pruned per layer already"):
        family_of({"architectures": ["BonsaiLlamaForCausalLM"]})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden_size": None}, "hidden_size"),
        ({"intermediate_size": 0}, "intermediate_size"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers"),
        ({"num_attention_heads": True}, "num_attention_heads"),
        ({"num_key_value_heads": 3}, "num_attention_heads"),
    ],
)
def test_sizes_that_cannot_be_are_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidModelError, match=named):
        widths_of(CONFIG | change)


def test_an_unreachable_target_names_the_reachable_one_rounded_down() -> None:
    reachable = reachable_sparsity(CONFIG, 64)
    with pytest.raises(UnreachableTargetError) as caught:
        require_reachable(0.95, reachable)
    allowed = float(caught.value.allowed.split("up to ")[1].split()[0])
    assert caught.value.field == "target.sparsity"
    assert caught.value.value == 0.95
    assert reachable - 1e-4 < allowed <= reachable
    require_reachable(allowed, reachable)


def test_an_alignment_wider_than_the_mlp_is_refused() -> None:
    with pytest.raises(UnreachableTargetError, match=r"pruning\.align.*allowed: 1 to 128"):
        reachable_sparsity(CONFIG, 129)


def test_config_and_families_need_no_torch() -> None:
    program = (
        "import sys, bonsai_core.config, bonsai_core.families, bonsai_core.errors;"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_sequences_longer_than_the_context_are_refused_with_the_longest_allowed() -> None:
    require_context({"max_position_embeddings": 128}, 128)
    require_context({}, 100_000)
    with pytest.raises(InvalidCalibrationError, match=r"sequence_length.*allowed: 8 to 128"):
        require_context({"max_position_embeddings": 128}, 129)
