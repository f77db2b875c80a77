"""The folder of a result: weights, config, tokenizer, and `bonsai.json`: how it was made.

Uniform results are stock models of their family, wherever a stock config can say their sizes.
Others keep per-layer widths in the config and load with the modelling file that lies beside the
weights (`bonsai_core.modeling_bonsai`).
"""

import json
import math
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import safe_open

from bonsai_core.config import PruneRequest
from bonsai_core.errors import PruneError
from bonsai_core.families import GateKind
from bonsai_core.gates import Gate
from bonsai_core.heterogeneous import save_heterogeneous
from bonsai_core.ledger import RoundRecord
from bonsai_core.models import LoadedModel
from bonsai_core.quiet import quiet
from bonsai_core.versions import versions

MANIFEST = "bonsai.json"


@dataclass(frozen=True, slots=True)
class SavedModel:
    """What the written files hold, counted from them."""

    parameters: int
    non_embedding_parameters: int
    sparsity: float


def require_free(folder: Path) -> None:
    """Refuse to write where something is.

    Raises:
        PruneError: the folder exists and is not empty, or is a mount point.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PruneError(
            "something is there already",
            field="output",
            value=str(folder),
            allowed="a folder that does not exist, or is empty",
            cure="choose another folder or remove this one",
        )
    if folder.is_mount():
        raise PruneError(
            "the folder is a mount point, which a whole result cannot take the place of",
            field="output",
            value=str(folder),
            allowed="a folder below it",
            cure=f"use {str(folder / 'model')!r}",
        )


@quiet()
def save(
    loaded: LoadedModel,
    gates: Sequence[Gate],
    folder: Path,
    *,
    request: PruneRequest,
    records: Sequence[RoundRecord],
    perplexity_before: float,
    calibration_sha256: str,
    non_embedding_before: int,
) -> SavedModel:
    """Write the result and count it again from what was written.

    The folder gets its name when it is whole. The same model and request give the same bytes.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    stock = _stock(loaded, gates) if is_uniform(gates) else None
    if stock is not None:
        stock.save_pretrained(partial)
    else:
        save_heterogeneous(loaded.model, partial)
    loaded.tokenizer.save_pretrained(partial)
    _give_ordinary_permissions(partial)
    saved = _count(partial, loaded, non_embedding_before)
    assert saved.non_embedding_parameters == non_embedding_before - sum(
        (_dense_units(loaded, gate) - gate.units) * gate.price for gate in gates
    ), "the written weights differ from the plan"
    manifest = {
        "format": 1,
        "request": request.model_dump(mode="json"),
        "sparsity": saved.sparsity,
        "parameters": saved.parameters,
        "non_embedding_parameters": saved.non_embedding_parameters,
        "non_embedding_parameters_before": non_embedding_before,
        "kept": {gate.name: gate.kept.tolist() for gate in gates},
        "perplexity": {
            "before": perplexity_before,
            "after": records[-1].perplexity,
            "protocol": {
                "text": "the calibration batch itself, which the run has seen",
                "tokens_sha256": calibration_sha256,
                "windows": request.calibration.samples,
                "window": request.calibration.sequence_length,
                "overlap": 0,
                "special_tokens": False,
                "dtype": str(loaded.dtype).removeprefix("torch."),
                "device": loaded.device.type,
            },
        },
        "rounds": [record.model_dump(mode="json") for record in records],
        "source_sha256": loaded.digest,
        "versions": versions(),
    }
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    if folder.exists():
        folder.rmdir()
    partial.rename(folder)
    return saved


def is_uniform(gates: Sequence[Gate]) -> bool:
    """Whether every layer has the same widths."""
    return all(len({gate.units for gate in gates if gate.kind is kind}) == 1 for kind in GateKind)


def _stock(loaded: LoadedModel, gates: Sequence[Gate]) -> Any:
    """The pruned model as a stock class, sharing the live weights; None where no class fits."""
    groups = next(gate.units for gate in gates if gate.kind is GateKind.ATTENTION)
    channels = next(gate.units for gate in gates if gate.kind is GateKind.MLP)
    widths = loaded.widths
    sizes = {
        "num_key_value_heads": groups,
        "num_attention_heads": groups * (widths.query_rows // widths.head_rows),
        "intermediate_size": channels,
        "head_dim": widths.head_rows,
        # Files may hold a head of its own although their config says that it is tied.
        "tie_word_embeddings": loaded.model.get_output_embeddings().weight
        is loaded.model.get_input_embeddings().weight,
    }
    model_class = getattr(transformers, loaded.family.architecture)
    dense = loaded.model.config.to_dict()
    try:
        config = model_class.config_class.from_dict({**dense, **sizes})
    except (ValueError, StrictDataclassError):
        # Some configs refuse head counts that do not divide the hidden size, though the model
        # computes with any: the stand-in is the same computation under another name.
        if loaded.family.stand_in is None or dense.get("attention_bias") or dense.get("mlp_bias"):
            return None
        model_class = getattr(transformers, loaded.family.stand_in)
        config = model_class.config_class.from_dict({**dense, **sizes, "sliding_window": None})
    with torch.device("meta"):
        stock = model_class(config)
    stock.load_state_dict(loaded.model.state_dict(), assign=True)
    stock.tie_weights()
    stock.generation_config = loaded.model.generation_config
    stock.config.dtype = loaded.dtype
    return stock


def _give_ordinary_permissions(folder: Path) -> None:
    """Weights are written for the owner alone; give them the mode that the umask gave config.json.

    Asking the umask itself would mean to change it, for all threads of the process.
    """
    mode = stat.S_IMODE((folder / "config.json").stat().st_mode)
    for path in folder.glob("*.safetensors"):
        path.chmod(mode)


def _dense_units(loaded: LoadedModel, gate: Gate) -> int:
    widths = loaded.widths
    return widths.groups if gate.kind is GateKind.ATTENTION else widths.channels


def _count(folder: Path, loaded: LoadedModel, before: int) -> SavedModel:
    """Parameters in the safetensors files, by their shapes; tied weights are written once."""
    embedding = {"model.embed_tokens.weight", f"{loaded.family.head}.weight"}
    total = rest = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dictionary
                size = math.prod(file.get_slice(name).get_shape())
                total += size
                rest += size * (name not in embedding)
    return SavedModel(total, rest, (before - rest) / before)
