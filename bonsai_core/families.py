"""The model families that can be pruned, as data: config keys, module paths, coupled weights.

A *gate* is the input of an output projection. All that can be pruned shows up there as a slice of
columns, a *unit*, and goes together with the rows that produce it. Nothing here needs torch: the
sizes and prices of a model follow from its `config.json`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from bonsai_core.errors import (
    InvalidCalibrationError,
    InvalidModelError,
    UnreachableTargetError,
    UnsupportedModelError,
)


class GateKind(StrEnum):
    """The two places of a transformer layer where units can be removed."""

    ATTENTION = "attention"
    MLP = "mlp"


@dataclass(frozen=True, slots=True)
class Producer:
    """A linear layer whose output rows feed a gate: `rows` of them belong to one unit."""

    path: str
    rows: str
    has_bias: bool = False
    """In every model of the family; the pattern's `bias_key` is for those where it depends."""


@dataclass(frozen=True, slots=True)
class GatePattern:
    """One kind of gate in every layer of a family; paths are relative to the layer.

    `rows` and `columns` name entries of `Widths`: how many belong to one unit. `bias_key` names
    the entry of the config that gives all linear layers of the pattern a bias.
    """

    kind: GateKind
    output: str
    columns: str
    producers: tuple[Producer, ...]
    bias_key: str = ""


ATTENTION = GatePattern(
    kind=GateKind.ATTENTION,
    output="self_attn.o_proj",
    columns="query_rows",
    producers=(
        Producer("self_attn.q_proj", "query_rows"),
        Producer("self_attn.k_proj", "head_rows"),
        Producer("self_attn.v_proj", "head_rows"),
    ),
    bias_key="attention_bias",
)
BIASED_ATTENTION = replace(
    ATTENTION,
    producers=tuple(replace(producer, has_bias=True) for producer in ATTENTION.producers),
    bias_key="",
)
MLP = GatePattern(
    kind=GateKind.MLP,
    output="mlp.down_proj",
    columns="channel_rows",
    producers=(Producer("mlp.gate_proj", "channel_rows"), Producer("mlp.up_proj", "channel_rows")),
    bias_key="mlp_bias",
)


@dataclass(frozen=True, slots=True)
class Family:
    """What must be known of an architecture to prune it; no code of its own.

    Attributes:
        architecture: the name in the config's `architectures`.
        layers: path of the list of decoder layers.
        backbone: path of the module that gives the hidden states before the head.
        head: path of the module that turns hidden states into logits.
        gates: what can be pruned in every layer.
        head_norms: norms over one head in every layer.
        stand_in: architecture that computes the same and accepts any number of heads, for a
            family whose config refuses head counts that do not divide the hidden size.
    """

    architecture: str
    layers: str = "model.layers"
    backbone: str = "model"
    head: str = "lm_head"
    gates: tuple[GatePattern, ...] = (ATTENTION, MLP)
    head_norms: int = 0
    stand_in: str | None = None


FAMILIES: Mapping[str, Family] = {
    family.architecture: family
    for family in (
        Family("LlamaForCausalLM", stand_in="MistralForCausalLM"),
        Family("MistralForCausalLM"),
        Family("Qwen2ForCausalLM", gates=(BIASED_ATTENTION, MLP)),
        Family("Qwen3ForCausalLM", head_norms=2),
    )
}


@dataclass(frozen=True, slots=True)
class Widths:
    """The sizes of a dense model that decide what its units are; all in number of elements."""

    layers: int
    hidden: int
    groups: int
    channels: int
    query_rows: int
    head_rows: int
    channel_rows: int = 1


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of a model, from the `architectures` of its config.

    Raises:
        UnsupportedModelError: none of the named architectures is in `FAMILIES`, or the model is
            pruned per layer already.
    """
    found = config.get("architectures")
    named = [str(name) for name in found] if isinstance(found, list) else []
    for architecture in named:
        if architecture in FAMILIES:
            return FAMILIES[architecture]
        if architecture.removeprefix("Bonsai") in FAMILIES:
            raise UnsupportedModelError(
                "this model is pruned per layer already and cannot be pruned again",
                field="model.source",
                value=architecture,
                allowed=", ".join(FAMILIES),
                cure="prune the dense model to the smaller size",
            )
    raise UnsupportedModelError(
        "this architecture cannot be pruned",
        field="model.source",
        value=", ".join(named) or f"model_type {config.get('model_type')!r}, no architectures",
        allowed=", ".join(FAMILIES),
        cure="choose a model of one of these; docs/adding-a-model-family.md says how to add one",
    )


def widths_of(config: Mapping[str, Any]) -> Widths:
    """The widths of a dense model, from its config.

    Raises:
        InvalidModelError: a size is missing, not positive, or the heads do not divide into groups.
    """
    heads = _size(config, "num_attention_heads")
    groups = _size(config, "num_key_value_heads", default=heads)
    hidden = _size(config, "hidden_size")
    head_rows = _size(config, "head_dim", default=hidden // heads)
    if heads % groups:
        raise InvalidModelError(
            f"num_attention_heads must be a multiple of num_key_value_heads ({groups})",
            field="model.source",
            value=heads,
            cure="repair the model's config.json",
        )
    return Widths(
        layers=_size(config, "num_hidden_layers"),
        hidden=hidden,
        groups=groups,
        channels=_size(config, "intermediate_size"),
        query_rows=heads // groups * head_rows,
        head_rows=head_rows,
    )


def _size(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    if value is None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidModelError(
            f"{key} in the model's config must be a positive whole number",
            field="model.source",
            value=value,
            cure="repair the model's config.json",
        )
    return value


def unit_price(pattern: GatePattern, widths: Widths, config: Mapping[str, Any]) -> int:
    """Parameters, biases included, that go when one unit of a gate goes."""
    biased = _is_biased(pattern, config)
    producers = sum(
        getattr(widths, producer.rows) * (widths.hidden + (biased or producer.has_bias))
        for producer in pattern.producers
    )
    return int(producers + widths.hidden * getattr(widths, pattern.columns))


def _is_biased(pattern: GatePattern, config: Mapping[str, Any]) -> bool:
    return bool(config.get(pattern.bias_key))


def reachable_sparsity(config: Mapping[str, Any], align: int) -> float:
    """The largest share of the non-embedding parameters that any plan can remove.

    A layer keeps at least one attention unit and `align` channels.

    Raises:
        UnreachableTargetError: `align` is wider than the MLP.
    """
    family, widths = family_of(config), widths_of(config)
    if align > widths.channels:
        raise UnreachableTargetError(
            "the alignment is wider than the model's MLP",
            field="pruning.align",
            value=align,
            allowed=f"1 to {widths.channels}",
        )
    norms = 2 * widths.hidden + family.head_norms * widths.head_rows
    total = widths.layers * norms + widths.hidden
    removable = 0
    for pattern in family.gates:
        units, kept = (
            (widths.groups, 1) if pattern.kind is GateKind.ATTENTION else (widths.channels, align)
        )
        price = unit_price(pattern, widths, config)
        total += widths.layers * (units * price + _is_biased(pattern, config) * widths.hidden)
        removable += widths.layers * (units - kept) * price
    return removable / total


def require_context(config: Mapping[str, Any], sequence_length: int) -> None:
    """Refuse sequences that are longer than the model was made for.

    Raises:
        InvalidCalibrationError: `sequence_length` exceeds the config's `max_position_embeddings`.
    """
    longest = config.get("max_position_embeddings")
    if isinstance(longest, int) and sequence_length > longest:
        raise InvalidCalibrationError(
            "longer than the model's context",
            field="calibration.sequence_length",
            value=sequence_length,
            allowed=f"8 to {longest} for this model",
        )


def require_reachable(sparsity: float, reachable: float) -> None:
    """Refuse a target beyond what can be removed.

    Raises:
        UnreachableTargetError: `sparsity` is larger than `reachable`.
    """
    if sparsity > reachable:
        raise UnreachableTargetError(
            "more than can be removed while every layer keeps one attention group and one "
            "aligned block of channels",
            field="target.sparsity",
            value=sparsity,
            allowed=f"above 0, up to {math.floor(reachable * 1e4) / 1e4} for this model",
            cure="ask for less, or use a smaller pruning.align",
        )
