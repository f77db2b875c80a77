"""What a prune takes of a device, told from a config alone."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bonsai_core.config import ModelSource
from bonsai_core.errors import UnsupportedModelError
from bonsai_core.footprint import WEIGHTS_SHARE, footprint
from bonsai_core.models import dense_config, load, parameters
from tests.tiny_models import ARCHITECTURES, tiny_model

LLAMA_3_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
WEIGHTS = 2 * 8_030_261_248
"""Bytes of its parameters."""


def test_a_model_of_eight_billion_parameters_leaves_a_quarter_for_the_rest() -> None:
    found = footprint(LLAMA_3_8B, "auto", 2048)
    assert found.whole == pytest.approx(WEIGHTS / WEIGHTS_SHARE, rel=0.2)
    assert found.whole >= WEIGHTS / WEIGHTS_SHARE
    embeddings = 2 * 2 * 4096 * 128_256
    assert embeddings < found.streamed < found.whole / 2


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_the_weights_are_in_the_format_that_is_asked_for_or_that_the_config_says(name: str) -> None:
    config = {key: value for key, value in LLAMA_3_8B.items() if key != "dtype"}
    assert footprint(config, "auto", 512) == footprint(config, "float32", 512)
    half = footprint({**config, name: "float16"}, "auto", 512)
    assert half == footprint(config, "bfloat16", 512)
    assert half.whole < footprint(config, "float32", 512).whole


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_family_takes_less_than_its_weights(tmp_path: Path, architecture: str) -> None:
    source = ModelSource(source=str(tiny_model(tmp_path / "model", architecture=architecture)))
    model = load(source, torch.device("cpu")).model
    config = dense_config(source)
    short, long = footprint(config, "float32", 8), footprint(config, "float32", 64)
    assert 4 * parameters(model) <= short.whole < long.whole
    assert short.streamed <= short.whole


def test_an_unknown_architecture_has_no_estimate() -> None:
    with pytest.raises(UnsupportedModelError):
        footprint({"architectures": ["Unknown"]}, "auto", 512)
