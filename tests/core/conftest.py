"""What tests of the core share: tiny models saved once, and short requests."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bonsai_core.config import PruneRequest
from tests.tiny_models import REPRESENTATIVES, tiny_model, tiny_text

ModelBuilder = Callable[..., Path]


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> ModelBuilder:
    """`tiny_model` with a memory: the same options give the same folder; nobody changes it."""
    folders: dict[str, Path] = {}

    def build(architecture: str = "LlamaForCausalLM", **options: Any) -> Path:
        key = f"{architecture} {sorted(options.items())}"
        if key not in folders:
            folder = tmp_path_factory.mktemp("models") / architecture
            folders[key] = tiny_model(folder, architecture, **options)
        return folders[key]

    return build


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text(tmp_path_factory.mktemp("text") / "text.txt")


@pytest.fixture(params=REPRESENTATIVES)
def architecture(request: pytest.FixtureRequest) -> str:
    """A few families that differ; tests/core/test_family_contract.py has them all."""
    return request.param


@pytest.fixture
def request_for(text: Path) -> Callable[..., PruneRequest]:
    """A short prune of a model; options go to `pruning`."""

    def build(model: Path, sparsity: float = 0.4, **pruning: Any) -> PruneRequest:
        settings = {
            "preset": "paper",
            "utility": "nll",
            "refit": True,
            "masks_per_round": 8,
            "sparsity_per_round": 0.2,
        } | pruning
        return PruneRequest.model_validate(
            {
                "model": {"source": str(model)},
                "calibration": {"source": str(text), "samples": 4, "sequence_length": 32},
                "target": {"sparsity": sparsity},
                "pruning": settings,
            }
        )

    return build


@pytest.fixture
def install_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str, str, Mapping[str, str]], None]]:
    """Put a distribution on the path as pip would: its module, and metadata with entry points."""
    modules: list[str] = []

    def add(group: str, module: str, source: str, points: Mapping[str, str]) -> None:
        folder = tmp_path / module
        metadata = folder / f"{module}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (folder / f"{module}.py").write_text(source)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (metadata / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines]) + "\n")
        monkeypatch.syspath_prepend(folder)
        modules.append(module)

    yield add
    for module in modules:
        sys.modules.pop(module, None)


def blocks_of(page: Path, language: str) -> list[str]:
    """The code of a page of the documentation, by the language its fences name."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def umask() -> int:
    """The umask of this process; tests run in one thread."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
