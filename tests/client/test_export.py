"""`bonsai export` and `bonsai verify`, as they are typed."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from benchmarks.llama_cpp import llama_cpp
from client.cli import app
from tests.formats.pruned_folders import pruned_folder
from tests.tiny_models import tiny_model, tiny_text


def bonsai(*arguments: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(word) for word in arguments])


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pruned_folder(tmp_path_factory.mktemp("models"), "LlamaForCausalLM")


def test_a_file_is_written_beside_the_folder(pruned: Path) -> None:
    result = bonsai("export", pruned, "--format", "gguf-q8_0", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    path = pruned.with_name("pruned-q8_0.gguf")
    assert told == {"format": "gguf-q8_0", "path": str(path), "bytes": path.stat().st_size}
    with llama_cpp(path) as runtime:
        assert runtime.written("a tree", 4)


def test_a_folder_is_written_where_it_is_wanted(pruned: Path, tmp_path: Path) -> None:
    result = bonsai("export", pruned, "--format", "mlx", "--output", tmp_path / "mac")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(str(tmp_path / "mac"))
    assert json.loads((tmp_path / "mac" / "config.json").read_text())["model_type"] == "openelm"


def test_nothing_is_written_over(pruned: Path, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("mine")
    command = ("export", pruned, "--format", "gguf-f16", "--output", tmp_path / "model.gguf")
    result = bonsai(*command)
    assert result.exit_code == 1
    assert "something is there already" in result.stderr
    assert (tmp_path / "model.gguf").read_text() == "mine"


def test_what_cannot_be_written_says_why(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "dense", "GPT2LMHeadModel")
    result = bonsai("export", folder, "--format", "gguf-f16")
    assert result.exit_code == 1
    assert "llama, mistral, qwen2, qwen3" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.glob("*.gguf"))


def test_a_result_is_verified(tmp_path: Path) -> None:
    model, text = tiny_model(tmp_path / "model"), tiny_text(tmp_path / "text.txt")
    output = tmp_path / "smaller"
    done = bonsai(
        *("prune", model, "--sparsity", "0.3", "--calibration", text, "--output", output),
        *("--preset", "paper", "--samples", "4", "--sequence-length", "32"),
        *("--masks-per-round", "8", "--device", "cpu"),
    )
    assert done.exit_code == 0, done.output
    assert bonsai("verify", output, "--device", "cpu").exit_code == 0
    (output / "config.json").write_text((output / "config.json").read_text() + "\n")
    result = bonsai("verify", output, "--device", "cpu")
    assert result.exit_code == 1
    assert "FALSE config.json" in result.stdout
    told = json.loads(bonsai("verify", output, "--device", "cpu", "--json").stdout)
    assert told["true"] is False
    assert [check["name"] for check in told["checks"] if not check["holds"]] == ["config.json"]


def test_a_folder_that_is_no_result_cannot_be_verified(tmp_path: Path) -> None:
    result = bonsai("verify", tmp_path, "--device", "cpu")
    assert result.exit_code == 1
    assert "bonsai.json" in result.stderr
