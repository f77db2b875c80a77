"""mlx-lm computes from its folder what torch computes from ours."""

import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from bonsai_core.errors import PruneError, UnsupportedExportError
from bonsai_core.formats.mlx_folder import write_mlx
from tests.core.conftest import umask
from tests.formats.pruned_folders import (
    LLAMA3,
    PER_LAYER,
    TOKENS,
    UNIFORM,
    next_token_scores,
    pruned_folder,
)

mlx = pytest.importorskip("mlx.core", reason="mlx has no build for this platform")

CASES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", PER_LAYER, {}),
    "llama, tied": ("LlamaForCausalLM", PER_LAYER, {"tied": True}),
    "mistral": ("MistralForCausalLM", PER_LAYER, {"sliding_window": None}),
    "qwen3": ("Qwen3ForCausalLM", PER_LAYER, {}),
    "llama, slower rotation": (
        "LlamaForCausalLM",
        PER_LAYER,
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
    ),
    "llama, uniform": ("LlamaForCausalLM", UNIFORM, {}),
    "llama 3, uniform": ("LlamaForCausalLM", UNIFORM, {"rope_parameters": LLAMA3}),
    "qwen2, uniform": ("Qwen2ForCausalLM", ((4, 64),) * 3, {}),
    "qwen3, uniform": (
        "Qwen3ForCausalLM",
        UNIFORM,
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
    ),
}


def mlx_scores(folder: Path) -> torch.Tensor:
    """Log-probabilities of the next token, as mlx-lm's own loader and blocks compute them."""
    from mlx_lm import load

    model, tokenizer = load(str(folder))
    assert tokenizer.encode("tree")
    logits = model(mlx.array([TOKENS]))[0, -1].astype(mlx.float32)
    return torch.tensor(logits.tolist()).log_softmax(-1)


@pytest.mark.parametrize("case", CASES)
def test_mlx_computes_the_same(case: str, tmp_path: Path) -> None:
    architecture, widths, settings = CASES[case]
    folder = pruned_folder(tmp_path, architecture, widths, **settings)
    write_mlx(folder, tmp_path / "mlx")
    scores = mlx_scores(tmp_path / "mlx")
    torch.testing.assert_close(scores, next_token_scores(folder), atol=1e-3, rtol=0)


def test_weights_may_lie_in_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bonsai_core.formats.mlx_folder._SHARD", 20_000)
    folder = pruned_folder(tmp_path, "LlamaForCausalLM")
    write_mlx(folder, tmp_path / "mlx")
    assert len(list((tmp_path / "mlx").glob("model-*.safetensors"))) > 3
    scores = mlx_scores(tmp_path / "mlx")
    torch.testing.assert_close(scores, next_token_scores(folder), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("Qwen2ForCausalLM", {}),
        ("MistralForCausalLM", {"sliding_window": 64}),
        (
            "LlamaForCausalLM",
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
        ),
    ],
)
def test_what_its_block_does_not_compute_is_refused(
    architecture: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    folder = pruned_folder(tmp_path, architecture, **settings)
    with pytest.raises(UnsupportedExportError, match="no biases, rope_type 'default'"):
        write_mlx(folder, tmp_path / "mlx")
    assert not (tmp_path / "mlx").exists()
    assert not (tmp_path / ".mlx.partial").exists()


def test_files_have_ordinary_permissions(tmp_path: Path) -> None:
    folder = pruned_folder(tmp_path, "LlamaForCausalLM")
    write_mlx(folder, tmp_path / "mlx")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "mlx").iterdir()}
    assert modes == {0o666 & ~umask()}


def test_nothing_is_written_over(tmp_path: Path) -> None:
    folder = pruned_folder(tmp_path, "LlamaForCausalLM", UNIFORM)
    (tmp_path / "mlx").mkdir()
    (tmp_path / "mlx" / "note").write_text("mine")
    with pytest.raises(PruneError, match="something is there already"):
        write_mlx(folder, tmp_path / "mlx")
    assert (tmp_path / "mlx" / "note").read_text() == "mine"
