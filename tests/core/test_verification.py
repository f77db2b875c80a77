"""A result is taken at its word only as long as it keeps it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bonsai_core.digests import sha256_of
from bonsai_core.errors import InvalidModelError
from bonsai_core.verification import Check, verify
from tests.core.pruned import Pruned, RequestFor

Save = Callable[[], Path]


@pytest.fixture
def result(saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path) -> Path:
    folder = saved_model()
    Pruned(folder, request_for(folder)).cut(lambda i: 1 + i, lambda _: 16).save(tmp_path / "out")
    return tmp_path / "out"


def broken(folder: Path) -> dict[str, Check]:
    return {check.name: check for check in verify(folder, "cpu") if not check.holds}


def change_manifest(folder: Path, **entries: Any) -> None:
    manifest = json.loads((folder / "bonsai.json").read_text()) | entries
    (folder / "bonsai.json").write_text(json.dumps(manifest))


def change_weights(folder: Path) -> None:
    """Another model under a manifest whose digests are those of its files."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.0.mlp.down_proj.weight"] *= 1.1
    save_file(weights, path, {"format": "pt"})
    files = {file.name: sha256_of(file) for file in folder.iterdir() if file.suffix != ".json"}
    manifest = json.loads((folder / "bonsai.json").read_text())
    change_manifest(folder, files=manifest["files"] | files)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("uniform", [True, False])
def test_what_was_saved_is_true(
    saved_model: Callable[..., Path],
    request_for: RequestFor,
    tmp_path: Path,
    dtype: torch.dtype,
    uniform: bool,
) -> None:
    folder = saved_model()
    pruned = Pruned(folder, request_for(folder)).cut(
        lambda i: 1 if uniform else 1 + i, lambda _: 16
    )
    pruned.loaded.model.to(dtype)
    pruned.save(tmp_path / "out")
    checks = {check.name for check in verify(tmp_path / "out", "cpu")}
    assert {"model.safetensors", "parameters", "sparsity", "loads", "probe.mean_nll"} <= checks
    assert broken(tmp_path / "out") == {}


def test_a_changed_file_is_found(result: Path) -> None:
    with (result / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    assert set(broken(result)) == {"model.safetensors"}


def test_a_missing_file_is_found(result: Path) -> None:
    (result / "tokenizer.json").unlink()
    assert broken(result)["tokenizer.json"].found == "missing"


@pytest.mark.parametrize("name", ["extra.safetensors", "sitecustomize.py", "pytorch_model.bin"])
def test_what_a_program_would_load_beside_it_is_found(result: Path, name: str) -> None:
    (result / name).write_text("not told of")
    assert set(broken(result)) == {name}


def test_a_note_beside_it_is_nobodys_business(result: Path) -> None:
    (result / "notes.txt").write_text("looked at on Friday")
    assert broken(result) == {}


def test_a_wrong_count_is_found(result: Path) -> None:
    change_manifest(result, non_embedding_parameters=7, sparsity=0.9)
    assert set(broken(result)) == {"non_embedding_parameters", "sparsity"}


def test_weights_that_compute_something_else_are_found(result: Path) -> None:
    change_weights(result)
    assert set(broken(result)) == {"probe.mean_nll"}


def test_a_folder_without_a_manifest_is_refused(result: Path) -> None:
    (result / "bonsai.json").write_text("{}")
    with pytest.raises(InvalidModelError, match=r"no bonsai\.json with digests"):
        verify(result, "cpu")
