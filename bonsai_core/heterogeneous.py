"""Writes a pruned model whose layers differ in width as a folder that transformers can load."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel

from bonsai_core.modeling_bonsai import FAMILIES, AutoClasses, LayerWidths, require_widths

_PREFIX = "bonsai_"
# Keys of a dense config that say which class or file it came from: the pruned one has its own.
_IDENTITY = (
    "_name_or_path",
    "architectures",
    "auto_map",
    "model_type",
    "per_layer_config",
    "transformers_version",
)


def classes_for(config: PreTrainedConfig) -> AutoClasses:
    """The classes that hold a pruned model of the family of `config` (stock, or pruned already).

    Raises:
        ValueError: the family is none of those in `modeling_bonsai.FAMILIES`.
    """
    classes = FAMILIES.get(_PREFIX + config.model_type.removeprefix(_PREFIX))
    if classes is None:
        allowed = ", ".join(model_type.removeprefix(_PREFIX) for model_type in FAMILIES)
        raise ValueError(
            f"model_type {config.model_type!r} cannot be saved with widths per layer; "
            f"allowed: {allowed}"
        )
    return classes


def heterogeneous_config(
    dense_config: PreTrainedConfig, widths: Sequence[tuple[int, int, int]]
) -> PreTrainedConfig:
    """The config of a pruned model: that of the dense one, with widths for each layer.

    Args:
        dense_config: config of the dense model; it is left as it is.
        widths: per layer: query heads, key-value heads, MLP channels.

    Raises:
        ValueError: another family, another number of layers, or widths that no layer can have.
    """
    config_class = classes_for(dense_config).AutoConfig
    if len(widths) != dense_config.num_hidden_layers:
        raise ValueError(
            f"widths are given for {len(widths)} layers, but the config's num_hidden_layers is "
            f"{dense_config.num_hidden_layers}"
        )
    layers = [LayerWidths(*layer) for layer in widths]
    for index, layer in enumerate(layers):
        require_widths(index, layer)
    settings = {key: value for key, value in dense_config.to_dict().items() if key not in _IDENTITY}
    return config_class(
        **settings,
        per_layer_config={str(index): layer._asdict() for index, layer in enumerate(layers)},
    )


def live_widths(model: PreTrainedModel) -> list[LayerWidths]:
    """The widths of each layer, read from the weights of a model in memory.

    Raises:
        ValueError: the rows of a query or key projection are not a whole number of heads.
    """
    return [
        LayerWidths(
            num_attention_heads=_heads(index, "q_proj", layer.self_attn),
            num_key_value_heads=_heads(index, "k_proj", layer.self_attn),
            intermediate_size=layer.mlp.down_proj.weight.shape[1],
        )
        for index, layer in enumerate(model.base_model.layers)
    ]


def _heads(layer: int, name: str, attention: Any) -> int:
    rows, head_dim = getattr(attention, name).weight.shape[0], attention.head_dim
    if rows % head_dim:
        raise ValueError(
            f"layers.{layer}.self_attn.{name} has {rows} rows, which is not a multiple of the "
            f"head_dim {head_dim}; remove whole heads"
        )
    return int(rows // head_dim)


def save_heterogeneous(model: PreTrainedModel, folder: str | Path) -> None:
    """Write a live, already sliced model as a folder; the model itself is left as it is.

    The folder holds `config.json`, the safetensors under their standard names,
    `generation_config.json` and `modeling_bonsai.py`; it loads with `trust_remote_code=True`, or
    without it after `registration.register()`. The same model gives the same bytes.

    Args:
        model: a stock causal language model of one of the families, whose linear layers were
            sliced in place; widths and the tie between embeddings and head are read from its
            modules, not from its config.
        folder: made if it is missing; files of the same names are replaced.

    Raises:
        ValueError: another family, or widths that no layer can have.
        RuntimeError: the weights of a layer contradict each other; names each tensor.
    """
    classes = classes_for(model.config)
    config = heterogeneous_config(model.config, live_widths(model))
    config.tie_word_embeddings = (
        model.get_output_embeddings().weight is model.get_input_embeddings().weight
    )
    # A twin without memory of its own takes the live tensors, so nothing is copied, and saving is
    # the stock code with its shards and checks.
    with torch.device("meta"):
        twin = classes.AutoModelForCausalLM(config)
    twin.load_state_dict(model.state_dict(), assign=True)
    twin.tie_weights()
    twin.generation_config = copy.deepcopy(model.generation_config)
    twin.save_pretrained(folder)
