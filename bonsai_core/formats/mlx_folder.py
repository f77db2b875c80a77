"""A folder for mlx-lm.

mlx-lm has the families' own blocks with one width for all layers, so a uniform model is copied as
it is where they fit. Its `openelm` has widths for each layer, without biases and with plain rotary
frequencies.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from bonsai_core.folders import give_ordinary_permissions, require_free
from bonsai_core.formats.saved import SavedFolder, opened

_CARRIED = (
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
_SHARD = 4 * 2**30
"""Bytes: weights are written in files of about this size, each held in memory once."""


def write_mlx(folder: Path, output: Path) -> None:
    """Write a saved model as a folder that mlx-lm loads without more.

    Args:
        folder: of a saved model, pruned or dense.
        output: a folder that does not exist, or is empty; it gets its name when it is whole.

    Raises:
        InvalidModelError: the folder cannot be read.
        PruneError: something is at `output` already.
        UnsupportedExportError: mlx-lm has no block that computes this model.
    """
    require_free(output)
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with opened(folder) as saved:
            if saved.block.has_mlx_family():
                config = _family_config(saved)
                for path in folder.glob("*.safetensors*"):
                    shutil.copy(path, partial)
            else:
                config = _config(saved)
                _write_weights(saved, partial)
        (partial / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        for name in _CARRIED:
            if (folder / name).is_file():
                shutil.copy(folder / name, partial)
        give_ordinary_permissions(partial)
        if output.exists():
            output.rmdir()
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _family_config(saved: SavedFolder) -> dict[str, Any]:
    """The folder's config, with rotary settings where mlx-lm looks for them."""
    rope = saved.rope
    scaling = None if saved.block.rope_type == "default" else rope
    config: dict[str, Any] = json.loads((saved.folder / "config.json").read_text())
    return config | {"rope_theta": rope["rope_theta"], "rope_scaling": scaling}


def _config(saved: SavedFolder) -> dict[str, Any]:
    return {
        "model_type": "openelm",
        "architectures": ["OpenELMForCausalLM"],
        "vocab_size": saved.shape("model.embed_tokens.weight")[0],
        "model_dim": saved.hidden,
        "head_dim": saved.head_rows,
        "num_transformer_layers": len(saved.layers),
        "num_query_heads": [layer.heads for layer in saved.layers],
        "num_kv_heads": [layer.groups for layer in saved.layers],
        # Widths are computed as the nearest multiple of the divisor to these, of the hidden size.
        "ffn_multipliers": [layer.channels / saved.hidden for layer in saved.layers],
        "ffn_dim_divisor": 1,
        "ffn_with_glu": True,
        "normalize_qk_projections": saved.block.family == "qwen3",
        "share_input_output_layers": saved.block.tied,
        "rms_norm_eps": saved.config.rms_norm_eps,
        "rope_freq_constant": saved.rope["rope_theta"],
        "bos_token_id": saved.config.bos_token_id,
        "eos_token_id": saved.config.eos_token_id,
    }


def _parts(saved: SavedFolder) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name of each tensor, and those of the folder whose rows follow each other in it."""
    yield "transformer.token_embeddings.weight", ("model.embed_tokens.weight",)
    for index in range(len(saved.layers)):
        source, layer = f"model.layers.{index}.", f"transformer.layers.{index}."
        attention = f"{source}self_attn."
        yield (
            f"{layer}attn.qkv_proj.weight",
            tuple(f"{attention}{letter}_proj.weight" for letter in "qkv"),
        )
        yield f"{layer}attn.out_proj.weight", (f"{attention}o_proj.weight",)
        if saved.block.family == "qwen3":
            for norm in ("q_norm", "k_norm"):
                yield f"{layer}attn.{norm}.weight", (f"{attention}{norm}.weight",)
        yield f"{layer}attn_norm.weight", (f"{source}input_layernorm.weight",)
        yield f"{layer}ffn_norm.weight", (f"{source}post_attention_layernorm.weight",)
        gated = tuple(f"{source}mlp.{name}_proj.weight" for name in ("gate", "up"))
        yield f"{layer}ffn.proj_1.weight", gated
        yield f"{layer}ffn.proj_2.weight", (f"{source}mlp.down_proj.weight",)
    yield "transformer.norm.weight", ("model.norm.weight",)
    if not saved.block.tied:
        yield "lm_head.weight", ("lm_head.weight",)


def _write_weights(saved: SavedFolder, folder: Path) -> None:
    """In one file or several; mlx-lm reads all whose names begin with `model`."""
    held: dict[str, Tensor] = {}
    number = 0
    for name, sources in _parts(saved):
        held[name] = torch.cat([saved.tensor(source) for source in sources])
        if sum(tensor.nbytes for tensor in held.values()) >= _SHARD:
            number += 1
            save_file(held, folder / f"model-{number:05}.safetensors", {"format": "mlx"})
            held = {}
    if held:
        save_file(held, folder / f"model-{number + 1:05}.safetensors", {"format": "mlx"})
