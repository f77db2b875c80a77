"""The folder of a result: weights, config, tokenizer, card, and `bonsai.json`: how it was made.

Uniform results are stock models of their family, wherever a stock config can say their sizes.
Others keep per-layer widths in the config and load with the modelling file that lies beside the
weights (`bonsai_core.modeling_bonsai`).
"""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import safe_open

from bonsai_core.config import PruneRequest
from bonsai_core.digests import sha256_of
from bonsai_core.families import GateKind, Keys
from bonsai_core.folders import MANIFEST, give_ordinary_permissions
from bonsai_core.formats.exporter import export_wished
from bonsai_core.gates import Gate
from bonsai_core.heterogeneous import save_heterogeneous
from bonsai_core.ledger import RoundRecord
from bonsai_core.live import stock_state
from bonsai_core.model_card import CARD, model_card
from bonsai_core.models import LoadedModel, embedding_parameters
from bonsai_core.probe import probe
from bonsai_core.quiet import quiet
from bonsai_core.versions import versions

_EXPERT_ROW = 16
"""Bytes: stock classes multiply all experts at once, by a kernel that takes rows of multiples."""


@dataclass(frozen=True, slots=True)
class SavedModel:
    """What the written files hold, counted from them."""

    parameters: int
    non_embedding_parameters: int
    sparsity: float


@quiet()
def save(
    loaded: LoadedModel,
    gates: Sequence[Gate],
    folder: Path,
    *,
    request: PruneRequest,
    records: Sequence[RoundRecord],
    perplexity_before: float,
    utilities: tuple[Mapping[str, float], Mapping[str, float]],
    calibration_sha256: str,
    non_embedding_before: int,
) -> SavedModel:
    """Write the result and count it again from what was written.

    The folder gets its name when it is whole. The same model and request give the same bytes.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_model(loaded, gates, partial)
    give_ordinary_permissions(partial)
    saved = _count(partial, loaded, non_embedding_before)
    assert saved.non_embedding_parameters == non_embedding_before - sum(
        (gate.dense_units - gate.units) * gate.price for gate in gates
    ), "the written weights differ from the plan"
    manifest: dict[str, Any] = {
        "format": 1,
        "architecture": _written_architecture(partial),
        "request": request.model_dump(mode="json"),
        "sparsity": saved.sparsity,
        "parameters": saved.parameters,
        "non_embedding_parameters": saved.non_embedding_parameters,
        "non_embedding_parameters_before": non_embedding_before,
        "kept": {gate.name: gate.kept.tolist() for gate in gates},
        "units_before": {gate.name: gate.dense_units for gate in gates},
        "perplexity": {
            "before": perplexity_before,
            "after": records[-1].perplexity,
            "protocol": {
                "text": "the last sequences of the calibration text, which the run has seen",
                "tokens_sha256": calibration_sha256,
                "windows": request.trial_given_samples,
                "window": request.calibration.sequence_length,
                "overlap": 0,
                "special_tokens": False,
                "dtype": str(loaded.dtype).removeprefix("torch."),
                "device": loaded.device.type,
            },
        },
        "utilities": {"before": dict(utilities[0]), "after": dict(utilities[1])},
        "rounds": [record.model_dump(mode="json") for record in records],
        "probe": {
            "mean_nll": probe(loaded.model, loaded.family, loaded.device),
            "dtype": str(loaded.dtype).removeprefix("torch."),
        },
        "source_revision": loaded.revision,
        "source_sha256": loaded.digest,
        "versions": versions(),
    }
    (partial / CARD).write_text(model_card(manifest, loaded.licence), encoding="utf-8")
    _write_manifest(partial, manifest)  # exporters read it
    export_wished(partial, request)
    _write_manifest(partial, manifest | {"files": _digests(partial)})
    if folder.exists():
        folder.rmdir()
    partial.rename(folder)
    return saved


def save_model(loaded: LoadedModel, gates: Sequence[Gate], folder: Path) -> None:
    """Write weights, config and tokenizer: of a stock class if one can hold the widths."""
    stock = _stock(loaded, gates) if is_uniform(gates) else None
    if stock is not None:
        stock.save_pretrained(folder)
    else:
        save_heterogeneous(loaded.model, _widths_per_layer(loaded, gates), folder)
    loaded.tokenizer.save_pretrained(folder)


def is_uniform(gates: Sequence[Gate]) -> bool:
    """Whether every layer has the same widths."""
    return all(len({gate.units for gate in gates if gate.kind is kind}) <= 1 for kind in GateKind)


def _widths_per_layer(loaded: LoadedModel, gates: Sequence[Gate]) -> list[dict[str, Any]]:
    """The widths of each layer, under the names of the family's per-layer config."""
    mixture = loaded.widths.experts > 0
    widths: list[dict[str, Any]] = [
        {"expert_widths": None} if mixture else {} for _ in range(loaded.widths.layers)
    ]
    for gate in gates:
        layer = widths[gate.layer]
        if gate.kind is GateKind.EXPERTS:
            layer["expert_widths"] = [loaded.widths.channels] * gate.units
        elif gate.kind is GateKind.MLP and mixture:
            layer["expert_widths"] = [*(layer["expert_widths"] or []), gate.units]
        else:
            layer |= _widths(loaded, gate)
    return widths


def _widths(loaded: LoadedModel, gate: Gate) -> dict[str, int]:
    """What a stock config says of one gate."""
    keys, config = loaded.family.keys, loaded.model.config
    match gate.kind:
        case GateKind.MLP:
            return {(keys.channels or Keys().channels)[0]: gate.units}
        case GateKind.EXPERTS:
            chosen = min(config.num_experts_per_tok, gate.units)
            return {keys.experts[0]: gate.units, "num_experts_per_tok": chosen}
        case GateKind.ATTENTION:
            heads = gate.units * loaded.widths.heads_per_group
            return {keys.heads[0]: heads, keys.groups[0]: gate.units}


def _stock(loaded: LoadedModel, gates: Sequence[Gate]) -> Any:
    """The pruned model as a stock class, sharing the live weights; None where no class fits."""
    keys = loaded.family.keys
    if not keys.channels or not _experts_fit(loaded, gates):
        return None
    sizes: dict[str, Any] = {}
    for gate in gates:
        sizes |= _widths(loaded, gate)
        if gate.kind is GateKind.ATTENTION:
            sizes[keys.head[0]] = loaded.widths.head_rows
    # Files may hold a head of its own although their config says that it is tied.
    sizes["tie_word_embeddings"] = (
        loaded.model.get_output_embeddings().weight is loaded.model.get_input_embeddings().weight
    )
    model_class = getattr(transformers, loaded.family.architecture)
    # Without the names of code that came with the dense model and does not come with this one.
    dense = {k: v for k, v in loaded.model.config.to_dict().items() if k != "auto_map"}
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
    stock.load_state_dict(stock_state(loaded.model), assign=True)
    stock.tie_weights()
    stock.generation_config = loaded.model.generation_config
    stock.config.dtype = loaded.dtype
    return stock


def _experts_fit(loaded: LoadedModel, gates: Sequence[Gate]) -> bool:
    """Whether stock code can run the experts, if there are any."""
    channels = {gate.units for gate in gates if gate.kind is GateKind.MLP}
    fitting = all(units * loaded.dtype.itemsize % _EXPERT_ROW == 0 for units in channels)
    return not loaded.widths.experts or fitting


def _written_architecture(folder: Path) -> str:
    """The class that loads what was written."""
    config = json.loads((folder / "config.json").read_text())
    return str(config["architectures"][0])


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def _digests(folder: Path) -> dict[str, str]:
    """Of all files but the manifest, by their paths inside."""
    return {
        path.relative_to(folder).as_posix(): sha256_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def _count(folder: Path, loaded: LoadedModel, before: int) -> SavedModel:
    """Parameters in the safetensors files, by their shapes; tied weights are written once."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dictionary
                total += math.prod(file.get_slice(name).get_shape())
    # Not found by name: some families' tensors have other names in files than in memory.
    rest = total - embedding_parameters(loaded.model)
    return SavedModel(total, rest, (before - rest) / before)
