"""Formats that a prune is asked for lie in the folder of its result."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.llama_cpp import llama_cpp
from bonsai_core.config import PruneRequest
from bonsai_core.errors import UnsupportedExportError
from bonsai_core.events import Event, RoundStarted
from bonsai_core.ledger import MemoryLedger
from bonsai_core.pruner import prune
from bonsai_core.verification import verify
from tests.formats.pruned_folders import TOKENS, next_token_scores
from tests.tiny_models import VOCABULARY, tiny_model, tiny_text

Wish = Callable[..., PruneRequest]


@pytest.fixture
def wish(tmp_path: Path) -> Wish:
    """A request to prune a model, in some formats."""
    text = tiny_text(tmp_path / "text.txt")

    def build(model: Path, *formats: str, **pruning: Any) -> PruneRequest:
        return PruneRequest.model_validate(
            {
                "model": {"source": str(model)},
                "calibration": {"source": str(text), "samples": 4, "sequence_length": 32},
                "target": {"sparsity": 0.3},
                "pruning": {"preset": "statistics", **pruning},
                "formats": formats,
            }
        )

    return build


def refused(request: PruneRequest, output: Path) -> str:
    """What is said, without a single round."""
    heard: list[Event] = []
    with pytest.raises(UnsupportedExportError) as found:
        prune(request, output, ledger=MemoryLedger(), device="cpu", listener=heard.append)
    assert not any(isinstance(event, RoundStarted) for event in heard)
    assert not output.exists()
    return str(found.value)


def test_a_result_has_each_of_them(wish: Wish, tmp_path: Path) -> None:
    request = wish(tiny_model(tmp_path / "model"), "gguf-f32", "gguf-q8_0", "mlx")
    folder = tmp_path / "out"
    prune(request, folder, ledger=MemoryLedger(), device="cpu")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"gguf/model-f32.gguf", "gguf/model-q8_0.gguf", "mlx/config.json"} <= files
    with llama_cpp(folder / "gguf" / "model-f32.gguf") as runtime:
        scores = runtime.next_token_scores(TOKENS, VOCABULARY)
    torch.testing.assert_close(scores, next_token_scores(folder), atol=1e-4, rtol=0)
    checks = {check.name: check.holds for check in verify(folder, "cpu")}
    assert all(checks.values())
    assert files - {"bonsai.json"} <= set(checks)


def test_they_are_the_same_bytes_in_every_run(wish: Wish, tmp_path: Path) -> None:
    request = wish(tiny_model(tmp_path / "model"), "gguf-f16", "mlx")
    for name in ("one", "two"):
        prune(request, tmp_path / name, ledger=MemoryLedger(), device="cpu")
    one, two = ((tmp_path / name / "bonsai.json").read_text() for name in ("one", "two"))
    assert one == two


def test_a_changed_file_of_a_format_is_found(wish: Wish, tmp_path: Path) -> None:
    request = wish(tiny_model(tmp_path / "model"), "gguf-f16")
    prune(request, tmp_path / "out", ledger=MemoryLedger(), device="cpu")
    path = tmp_path / "out" / "gguf" / "model-f16.gguf"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    broken = [check.name for check in verify(tmp_path / "out", "cpu") if not check.holds]
    assert broken == ["gguf/model-f16.gguf"]


@pytest.mark.parametrize(
    ("architecture", "kind", "said"),
    [
        ("Gemma2ForCausalLM", "gguf-f16", "llama, mistral, qwen2, qwen3"),
        ("Qwen3ForCausalLM", "gguf-f16", "layout 'uniform'"),
        ("Qwen2ForCausalLM", "mlx", "biases"),
        ("MistralForCausalLM", "mlx", "sliding window 4096"),
    ],
)
def test_what_a_format_cannot_say_is_refused_before_any_work(
    architecture: str, kind: str, said: str, wish: Wish, tmp_path: Path
) -> None:
    request = wish(tiny_model(tmp_path / "model", architecture), kind)
    problem = refused(request, tmp_path / "out")
    assert said in problem
    assert problem.startswith("formats: ")
    assert f"(got '{kind}')" in problem


def test_a_uniform_layout_may_be_written_where_widths_for_each_layer_may_not(
    wish: Wish, tmp_path: Path
) -> None:
    request = wish(
        tiny_model(tmp_path / "model", "Qwen3ForCausalLM", groups=4, heads=8),
        "gguf-f16",
        "mlx",
        layout="uniform",
    )
    prune(request, tmp_path / "out", ledger=MemoryLedger(), device="cpu")
    assert (tmp_path / "out" / "gguf" / "model-f16.gguf").is_file()


def test_a_tokenizer_without_a_name_is_refused_before_any_work(wish: Wish, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    path = model / "tokenizer.json"
    described = json.loads(path.read_text())
    described["pre_tokenizer"]["use_regex"] = False
    path.write_text(json.dumps(described))
    problem = refused(wish(model, "gguf-f16"), tmp_path / "out")
    assert "how it splits text" in problem
    assert "--tokenizer-from" in problem


def test_a_format_is_named_once(wish: Wish, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name each once"):
        wish(tiny_model(tmp_path / "model"), "mlx", "mlx")
