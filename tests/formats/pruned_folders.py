"""Tiny pruned models as folders, with widths of the test's choice."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from bonsai_core.config import ModelSource
from bonsai_core.export import save_model
from bonsai_core.families import GateKind
from bonsai_core.gates import gates_of
from bonsai_core.models import load
from bonsai_core.registration import register
from bonsai_core.surgery import cut
from tests.tiny_models import tiny_model

UNIFORM = ((2, 64), (2, 64), (2, 64))
PER_LAYER = ((3, 96), (1, 37), (4, 64))
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
TOKENS = [5, 77, 130, 200, 9, 33, 61, 250, 14]


def pruned_folder(
    folder: Path,
    architecture: str,
    widths: Sequence[tuple[int, int]] = PER_LAYER,
    **settings: Any,
) -> Path:
    """Cut a model of 4 groups and 96 channels to so many (groups, channels) in each layer."""
    sizes = {"groups": 4, "heads": 8, "hidden": 64, "channels": 96, "layers": len(widths)}
    dense = tiny_model(folder / "dense", architecture, **(sizes | settings))
    loaded = load(ModelSource(source=str(dense)), torch.device("cpu"))
    gates = gates_of(loaded.model, loaded.family, loaded.widths)
    for gate in gates:
        left = widths[gate.layer][0 if gate.kind is GateKind.ATTENTION else 1]
        keep = np.linspace(0, gate.units - 1, left).round().astype(np.int64)
        cut(gate, np.setdiff1d(np.arange(gate.units), keep))
    save_model(loaded, gates, folder / "pruned")
    return folder / "pruned"


@torch.inference_mode()
def next_token_scores(folder: Path, tokens: Sequence[int] = TOKENS) -> torch.Tensor:
    """What torch computes: log-probabilities of the next token, [V] float32."""
    register()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model(torch.tensor([list(tokens)])).logits[0, -1].log_softmax(-1)
