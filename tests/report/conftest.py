"""Two prunes with their reports: by the default recipe to several sizes, and by random masks."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bonsai_core.config import PruneRequest
from bonsai_core.ledger import MemoryLedger
from bonsai_core.pruner import prune
from bonsai_core.report.writer import write_report
from tests.benchmarks.conftest import paragraphs
from tests.tiny_models import tiny_model


@dataclass(frozen=True)
class Reported:
    """A prune that has ended, and its request."""

    folder: Path
    request: PruneRequest

    @property
    def contents(self) -> dict[str, Any]:
        return json.loads((self.folder / "report.json").read_text())

    @property
    def page(self) -> str:
        return (self.folder / "report.html").read_text()


def pruned(place: Path, **wish: Any) -> Reported:
    """A prune without its report yet."""
    dense = tiny_model(place / "dense", layers=4, groups=4, heads=8, channels=96)
    texts = [paragraphs(place / f"{seed}.txt", seed, characters=9000) for seed in (3, 4)]
    request = PruneRequest.model_validate(
        {
            "model": {"source": str(dense)},
            "calibration": {"source": str(texts[0]), "samples": 8, "sequence_length": 64},
            "report": {"text": str(texts[1]), "prompts": ["A <b>tree</b> & its bark"]},
            **wish,
        }
    )
    prune(request, place / "out", ledger=MemoryLedger(), device="cpu")
    return Reported(place / "out", request)


def reported(place: Path, **wish: Any) -> Reported:
    """A prune with its report."""
    found = pruned(place, **wish)
    write_report(found.request, found.folder, device="cpu")
    return found


@pytest.fixture(scope="session")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """Three sizes of one run."""
    target = {"sparsity": 0.4, "stops": [0.1, 0.25]}
    return reported(tmp_path_factory.mktemp("sizes"), target=target)


@pytest.fixture(scope="session")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """Two rounds of random masks, in a further format."""
    settings = {"preset": "paper", "masks_per_round": 40, "sparsity_per_round": 0.1}
    place = tmp_path_factory.mktemp("masks")
    return reported(place, target={"sparsity": 0.2}, pruning=settings, formats=["gguf-f16"])
