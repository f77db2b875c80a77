"""One GGUF file for llama.cpp, and what embeds it.

Most of llama.cpp's architectures take the widths of layer 0 for all layers. Two do not, and have
the same block as ours: `deci` (Llama's, with or without biases) and `openelm` (with norms of
queries and keys, and an output that is always the embedding). A uniform model is written under its
own family's architecture.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from bonsai_core.formats.block import ROTATES_NEIGHBOURS
from bonsai_core.formats.gguf_tokens import add_tokens, copy_tokens
from bonsai_core.formats.names import WeightType
from bonsai_core.formats.saved import SavedFolder, opened

_TYPES = {
    WeightType.F32: (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    WeightType.F16: (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    WeightType.BF16: (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    WeightType.Q8_0: (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor of the file.

    Attributes:
        name: in the file.
        sources: tensors of the folder, whose rows follow each other in it.
        heads: of each source whose rows are reordered for the rotation; 0 for one that is not.
    """

    name: str
    sources: tuple[str, ...]
    heads: tuple[int, ...] = (0,)


def write_gguf(
    folder: Path,
    output: Path,
    weights: WeightType = WeightType.F16,
    tokenizer_from: Path | None = None,
) -> None:
    """Write a saved model as a GGUF file, one tensor at a time.

    Args:
        folder: of a saved model, pruned or dense.
        output: the file; it gets its name when it is whole.
        weights: how matrices are stored.
        tokenizer_from: a GGUF file of the dense model whose tokenizer is taken as it is; by
            default the folder's tokenizer is written.

    Raises:
        InvalidModelError: the folder cannot be read.
        UnsupportedExportError: llama.cpp has no architecture that computes this model.
    """
    partial = output.with_name(f".{output.name}.partial")
    try:
        with opened(folder) as saved:
            architecture = saved.block.gguf_architecture()
            with contextlib.closing(gguf.GGUFWriter(partial, architecture)) as writer:
                _add_settings(writer, saved, weights)
                if tokenizer_from is None:
                    add_tokens(writer, folder, saved.shape("model.embed_tokens.weight")[0])
                else:
                    copy_tokens(writer, tokenizer_from)
                _write_tensors(writer, saved, architecture, weights)
        partial.rename(output)
    finally:
        partial.unlink(missing_ok=True)


def _add_settings(writer: Any, saved: SavedFolder, weights: WeightType) -> None:
    config, layers = saved.config, saved.layers
    writer.add_name(saved.name)
    writer.add_file_type(_TYPES[weights][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if saved.manifest:
        writer.add_string("bonsai.source_sha256", saved.manifest["source_sha256"])
        writer.add_float32("bonsai.sparsity", saved.manifest["sparsity"])
    writer.add_vocab_size(saved.shape("model.embed_tokens.weight")[0])
    # Beyond the window that a model was trained with, llama.cpp would attend to all.
    window = saved.block.window or 2**31 - 1
    writer.add_context_length(min(config.max_position_embeddings, window))
    writer.add_embedding_length(saved.hidden)
    writer.add_block_count(len(layers))
    for add, widths in (
        (writer.add_head_count, [layer.heads for layer in layers]),
        (writer.add_head_count_kv, [layer.groups for layer in layers]),
        (writer.add_feed_forward_length, [layer.channels for layer in layers]),
    ):
        add(widths[0] if saved.block.uniform else widths)
    # Said outright: by default they are computed from layer 0's heads.
    writer.add_key_length(saved.head_rows)
    writer.add_value_length(saved.head_rows)
    writer.add_rope_dimension_count(saved.head_rows)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    _add_rope(writer, saved)


def _add_rope(writer: Any, saved: SavedFolder) -> None:
    rope = saved.rope
    writer.add_rope_freq_base(rope["rope_theta"])
    if saved.block.rope_type == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


def _rope_factors(saved: SavedFolder) -> np.ndarray | None:
    """By what each rotary frequency is divided, where that is not the same for all."""
    if saved.block.rope_type != "llama3":
        return None
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](saved.first_layer, torch.device("cpu"))
    exponents = np.arange(0, saved.head_rows, 2, dtype=np.float64) / saved.head_rows
    plain = 1 / np.float64(saved.rope["rope_theta"]) ** exponents
    factors: np.ndarray = (plain / scaled.double().numpy()).astype(np.float32)
    return factors


def _write_tensors(writer: Any, saved: SavedFolder, architecture: str, weights: WeightType) -> None:
    parts = list(_parts(saved, architecture))
    factors = _rope_factors(saved)
    if factors is not None:
        writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
    for part in parts:
        shape = _shape(saved, part)
        kind = _type(shape, weights)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        elements = int(np.prod(shape))
        writer.add_tensor_info(part.name, shape, np.float32, elements // block * size, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors)
    for part in parts:
        kind = _type(_shape(saved, part), weights)
        writer.write_tensor_data(gguf.quants.quantize(_values(saved, part), kind))


def _parts(saved: SavedFolder, architecture: str) -> Iterator[Part]:
    """The tensors of the file, in the order in which they are used."""
    yield Part("token_embd.weight", ("model.embed_tokens.weight",))
    for index, layer in enumerate(saved.layers):
        source, block = f"model.layers.{index}.", f"blk.{index}."
        yield Part(f"{block}attn_norm.weight", (f"{source}input_layernorm.weight",))
        yield from _attention(saved, architecture, index)
        for theirs, ours in (("attn_q_norm", "q_norm"), ("attn_k_norm", "k_norm")):
            yield from _present(saved, f"{block}{theirs}", f"{source}self_attn.{ours}")
        yield from _present(saved, f"{block}attn_output", f"{source}self_attn.o_proj")
        yield Part(f"{block}ffn_norm.weight", (f"{source}post_attention_layernorm.weight",))
        for theirs in ("gate", "up", "down"):
            yield from _present(saved, f"{block}ffn_{theirs}", f"{source}mlp.{theirs}_proj")
        assert layer.channels > 0  # llama.cpp leaves out the attention of a layer without any
    yield Part("output_norm.weight", ("model.norm.weight",))
    if not saved.block.tied:
        yield Part("output.weight", ("lm_head.weight",))


def _attention(saved: SavedFolder, architecture: str, index: int) -> Iterator[Part]:
    """Queries, keys and values of a layer."""
    layer = saved.layers[index]
    source, block = f"model.layers.{index}.self_attn.", f"blk.{index}."
    if architecture == "openelm":
        sources = tuple(f"{source}{letter}_proj.weight" for letter in "qkv")
        yield Part(f"{block}attn_qkv.weight", sources, (0, 0, 0))
        return
    rotated = architecture in ROTATES_NEIGHBOURS
    for letter, heads in (("q", layer.heads), ("k", layer.groups), ("v", 0)):
        reordered = heads if rotated else 0
        yield from _present(saved, f"{block}attn_{letter}", f"{source}{letter}_proj", reordered)


def _present(saved: SavedFolder, name: str, source: str, heads: int = 0) -> Iterator[Part]:
    """The weight and the bias of a layer, those of them that it has."""
    for kind in ("weight", "bias"):
        if f"{source}.{kind}" in saved.tensors:
            yield Part(f"{name}.{kind}", (f"{source}.{kind}",), (heads,))


def _shape(saved: SavedFolder, part: Part) -> tuple[int, ...]:
    shapes = [saved.shape(source) for source in part.sources]
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def _type(shape: tuple[int, ...], weights: WeightType) -> Any:
    """How a tensor of this shape is stored."""
    if len(shape) == 1:
        return gguf.GGMLQuantizationType.F32
    kind = _TYPES[weights][0]
    fits = shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0
    return kind if fits else gguf.GGMLQuantizationType.F16


def _values(saved: SavedFolder, part: Part) -> np.ndarray:
    """The numbers of a part, as float32."""
    pieces = []
    for source, heads in zip(part.sources, part.heads, strict=True):
        piece = saved.tensor(source).float().numpy()
        pieces.append(_neighbours(piece, heads) if heads else piece)
    return np.concatenate(pieces) if len(pieces) > 1 else np.ascontiguousarray(pieces[0])


def _neighbours(rows: np.ndarray, heads: int) -> np.ndarray:
    """Reorder each head's rows (0, half, 1, half + 1, ...): pairs that rotate lie together."""
    halves = rows.reshape(heads, 2, -1, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)
