"""The measurement of programs that run models, on models small enough for a test."""

import json
from pathlib import Path

import pytest

from benchmarks.runtimes import main
from tests.formats.pruned_folders import pruned_folder


def test_each_program_continues_as_torch_does(tmp_path: Path) -> None:
    pytest.importorskip("mlx.core", reason="mlx has no build for this platform")
    pruned = pruned_folder(tmp_path, "LlamaForCausalLM")
    main(
        [
            *(str(tmp_path / "dense"), str(pruned), "--pairs", "1", "--prompt-tokens", "16"),
            *("--tokens", "4", "--output", str(tmp_path), "--note", "cut by hand"),
            *("--programs", "transformers batch 2", "llama.cpp f32", "mlx"),
        ]
    )
    programs = json.loads((tmp_path / "runtimes.json").read_text())["programs"]
    assert [found["first_tokens_as_torch"] for found in programs.values()] == [4, 4, 4]
    assert all(found["decode_dense"] > 0 for found in programs.values())
    assert "cut by hand" in (tmp_path / "runtimes.md").read_text()
