"""Writes a pruned model whose layers differ in width as a folder that transformers can load."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel

from bonsai_core.live import stock_state
from bonsai_core.modeling_bonsai import FAMILIES, classes_of, require_widths

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

Widths = Mapping[str, int | list[int] | None]
"""The widths of one layer, under the names that the config of its family gives them.

A list has those of the layer's experts, None stands for a layer without any.
"""


def pruned_type(config: PreTrainedConfig) -> str:
    """The `model_type` of a pruned model of the family of `config` (stock, or pruned already).

    Raises:
        ValueError: the family is none of those in `modeling_bonsai.FAMILIES`.
    """
    model_type = _PREFIX + config.model_type.removeprefix(_PREFIX)
    if model_type not in FAMILIES:
        allowed = ", ".join(name.removeprefix(_PREFIX) for name in FAMILIES)
        raise ValueError(
            f"model_type {config.model_type!r} cannot be saved with widths per layer; "
            f"allowed: {allowed}"
        )
    return model_type


def heterogeneous_config(
    dense_config: PreTrainedConfig, widths: Sequence[Widths]
) -> PreTrainedConfig:
    """The config of a pruned model: that of the dense one, with widths for each layer.

    Args:
        dense_config: config of the dense model; it is left as it is.
        widths: of each layer; all that `modeling_bonsai.FAMILIES` names for the family.

    Raises:
        ValueError: another family, another number of layers, or widths that no layer can have.
    """
    model_type = pruned_type(dense_config)
    if len(widths) != dense_config.num_hidden_layers:
        raise ValueError(
            f"widths are given for {len(widths)} layers, but the config's num_hidden_layers is "
            f"{dense_config.num_hidden_layers}"
        )
    for index, layer in enumerate(widths):
        if set(layer) != set(FAMILIES[model_type].widths):
            raise ValueError(
                f"the widths of layer {index} are {', '.join(layer)}; "
                f"needed: {', '.join(FAMILIES[model_type].widths)}"
            )
        require_widths(index, layer)
    settings = {key: value for key, value in dense_config.to_dict().items() if key not in _IDENTITY}
    return classes_of(model_type).AutoConfig(
        **settings,
        per_layer_config={str(index): dict(layer) for index, layer in enumerate(widths)},
    )


def save_heterogeneous(
    model: PreTrainedModel, widths: Sequence[Widths], folder: str | Path
) -> None:
    """Write a live, already sliced model as a folder; the model itself is left as it is.

    The folder holds `config.json`, the safetensors under their standard names,
    `generation_config.json` and `modeling_bonsai.py`; it loads with `trust_remote_code=True`, or
    without it after `registration.register()`. The same model gives the same bytes.

    Args:
        model: a causal language model of one of the families, whose linear layers were sliced in
            place; the tie between embeddings and head is read from its modules.
        widths: of each layer, as for `heterogeneous_config`.
        folder: made if it is missing; files of the same names are replaced.

    Raises:
        ValueError: another family, or widths that no layer can have.
        RuntimeError: the weights of a layer are not of its widths; names each tensor.
    """
    config = heterogeneous_config(model.config, widths)
    config.tie_word_embeddings = (
        model.get_output_embeddings().weight is model.get_input_embeddings().weight
    )
    # A twin without memory of its own takes the live tensors, so nothing is copied, and saving is
    # the stock code with its shards and checks.
    with torch.device("meta"):
        twin = classes_of(pruned_type(config)).AutoModelForCausalLM(config)
    twin.load_state_dict(stock_state(model, fuse=False), assign=True)
    twin.tie_weights()
    twin.generation_config = copy.deepcopy(model.generation_config)
    twin.save_pretrained(folder)
