"""A model that was cut by hand, for tests of what is saved of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bonsai_core.config import ModelSource, PruneRequest
from bonsai_core.export import SavedModel, save
from bonsai_core.families import GateKind
from bonsai_core.gates import Gate, gates_of
from bonsai_core.ledger import RoundRecord
from bonsai_core.models import LoadedModel, load, non_embedding_parameters
from bonsai_core.surgery import cut

CPU = torch.device("cpu")
RECORD = RoundRecord(
    number=1,
    removed={},
    cut=True,
    damping=1e-3,
    sparsity=0.3,
    perplexity=12.0,
    trials=8,
    notes={"explained": 0.9, "regularisation": None},
)
UTILITIES = ({"kl": 0.0, "taste": 0.5}, {"kl": -0.25, "taste": 0.75})
RequestFor = Callable[..., PruneRequest]


class Pruned:
    """A live model that was cut, and what its dense state was."""

    def __init__(self, folder: Path, request: PruneRequest) -> None:
        self.request = request
        self.loaded: LoadedModel = load(ModelSource(source=str(folder)), CPU)
        self.gates: list[Gate] = gates_of(self.loaded.model, self.loaded.family, self.loaded.widths)
        self.before = non_embedding_parameters(self.loaded.model)

    def cut(self, groups: Callable[[int], int], channels: Callable[[int], int]) -> "Pruned":
        """Cut each layer to so many groups and channels, spread over the gate."""
        for gate in self.gates:
            left = (groups if gate.kind is GateKind.ATTENTION else channels)(gate.layer)
            keep = np.linspace(0, gate.units - 1, left).round().astype(np.int64)
            cut(gate, np.setdiff1d(np.arange(gate.units), keep))
        return self

    def save(self, folder: Path) -> SavedModel:
        return save(
            self.loaded,
            self.gates,
            folder,
            request=self.request,
            records=[RECORD],
            perplexity_before=10.0,
            utilities=UTILITIES,
            calibration_sha256="0" * 64,
            non_embedding_before=self.before,
        )
