"""What follows from a config alone, without torch: families, sizes, reach, refusals."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bonsai_core.errors import (
    InvalidCalibrationError,
    InvalidModelError,
    UnreachableTargetError,
    UnsupportedModelError,
)
from bonsai_core.families import (
    FAMILIES,
    PAGE,
    GateKind,
    block_of,
    family_of,
    reachable_sparsity,
    require_context,
    widths_of,
)

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
}


def test_a_config_without_groups_or_head_size_means_one_group_per_head() -> None:
    widths = widths_of({key: CONFIG[key] for key in CONFIG if key != "num_key_value_heads"})
    assert (widths.groups, widths.query_rows, widths.head_rows) == (4, 16, 16)


def test_another_architecture_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"MambaForCausalLM.*allowed: LlamaFor"
    ) as caught:
        family_of({"architectures": ["MambaForCausalLM"]})
    assert caught.value.field == "model.source"
    assert caught.value.allowed == ", ".join(FAMILIES)
    assert PAGE in caught.value.cure
    assert (Path(__file__).parents[2] / PAGE).is_file()
    with pytest.raises(UnsupportedModelError, match="model_type 'mamba', no architectures"):
        family_of({"model_type": "mamba"})


def test_the_page_names_every_family() -> None:
    page = (Path(__file__).parents[2] / PAGE).read_text()
    assert [name for name in FAMILIES if f"`{name}`" not in page] == []


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


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"architectures": ["GPT2LMHeadModel"], "n_embd": 64, "n_layer": 3, "n_head": 4}, 256),
        (
            {"architectures": ["BloomForCausalLM"], "n_embed": 64, "n_layer": 3}
            | {"num_attention_heads": 4},
            256,
        ),
        (
            {"architectures": ["OPTForCausalLM"], "hidden_size": 64, "num_hidden_layers": 3}
            | {"num_attention_heads": 4, "ffn_dim": 100},
            100,
        ),
    ],
    ids=["GPT-2", "Bloom", "OPT"],
)
def test_sizes_are_found_under_the_names_of_each_family(
    config: dict[str, Any], expected: int
) -> None:
    widths = widths_of(config | {"max_position_embeddings": 32})
    assert (widths.layers, widths.hidden, widths.groups) == (3, 64, 4)
    assert (widths.channels, widths.head_rows) == (expected, 16)


@pytest.mark.parametrize(
    ("channels", "devices", "block"),
    [
        (14_336, 1, 128),  # Llama-3-8B
        (4096, 1, 128),
        (11_008, 2, 2 * 128),
        (5632, 8, 8 * 16),
        (4064, 1, 32),  # too few blocks of 128 and 64 no divisor
        (1536, 1, 32),
        (1408, 1, 32),
        (1000, 1, 8),
        (1001, 1, 1),
        (248, 1, 1),
    ],
)
def test_where_no_alignment_is_asked_for_it_follows_from_the_width(
    channels: int, devices: int, block: int
) -> None:
    assert block_of(GateKind.MLP, channels, None, devices) == block
    assert channels % block in (0, channels % devices)
    assert block_of(GateKind.MLP, channels, 7, devices) == 7 * devices
    assert block_of(GateKind.ATTENTION, channels, None, devices) == devices


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
    require_context({}, 100_000)
    for key in ("max_position_embeddings", "n_positions"):
        require_context({key: 128}, 128)
        with pytest.raises(InvalidCalibrationError, match=r"sequence_length.*allowed: 8 to 128"):
            require_context({key: 128}, 129)
