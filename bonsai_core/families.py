"""The model families that can be pruned, as data: config keys, module paths, coupled weights.

A *gate* is the input of an output projection. All that can be pruned shows up there as a slice of
columns, a *unit*, and goes together with the rows that produce it. Nothing here needs torch: the
sizes and prices of a model follow from its `config.json`. docs/add-a-family.md says how to add one.
"""

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

PAGE = "docs/add-a-family.md"


class GateKind(StrEnum):
    """The places of a transformer layer where units can be removed."""

    ATTENTION = "attention"
    MLP = "mlp"
    EXPERTS = "experts"


class ExpertUnits(StrEnum):
    """What the units of a mixture of experts are, besides those of attention."""

    CHANNELS = "channels"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class When:
    """Holds for a model whose config has `value` under `key`; `default` where it has nothing."""

    key: str
    value: bool | int = True
    default: bool | int = False


@dataclass(frozen=True, slots=True)
class Producer:
    """A linear layer whose output rows feed a gate, in sections that lie one after the other.

    Each section has rows of all units, in their order; it is the name of an entry of `Widths`: how
    many rows of it belong to one unit. A projection fused by sections (all queries, all keys, all
    values) has several; one fused head by head has one, as wide as all that belongs to a head.
    """

    path: str
    sections: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Count:
    """A number of units that a module's code reads when it runs, so cutting must follow it up.

    Attributes:
        module: path of the module, relative to the layer.
        name: of its attribute, or of its config's where `in_config`.
        per_unit: entry of `Widths`: how many belong to one unit.
        in_config: the module reads it from its config; each layer then gets a config of its own.
    """

    module: str
    name: str
    per_unit: str
    in_config: bool = False


@dataclass(frozen=True, slots=True)
class GatePattern:
    """One kind of gate in every layer of a family; paths are relative to the layer.

    Attributes:
        kind: attention or MLP.
        output: the projection whose input the gate is.
        units: entry of `Widths`: how many units the gate has.
        columns: entry of `Widths`: columns of the gate that belong to one unit.
        producers: the linear layers whose rows feed the gate.
        output_bias: whether the output projection has a bias.
        producer_bias: whether the producers have one.
        counts: what must be told how many units are left.
        fixed: why units of it cannot be removed, in words; empty where they can.
        copies: entry of `Widths`: how many such gates a layer has, by whose numbers `{}` in the
            paths is replaced. Empty: one.
        sparse: whether layers with experts have it, or those without; None: all have.
        lists: paths of lists of modules with one entry for each unit, which goes with it.
        list_price: entry of `Widths`: parameters of those entries.
        weightless: the output only passes on what the gate lets through.
        experts: the gate is there if these are the units of a mixture; None: in any case.
    """

    kind: GateKind
    output: str
    units: str
    columns: str
    producers: tuple[Producer, ...]
    output_bias: When | bool = False
    producer_bias: When | bool = False
    counts: tuple[Count, ...] = ()
    fixed: str = ""
    copies: str = ""
    sparse: bool | None = None
    lists: tuple[str, ...] = ()
    list_price: str = ""
    weightless: bool = False
    experts: ExpertUnits | None = None


@dataclass(frozen=True, slots=True)
class Vectors:
    """Parameters that always stay: `count` times an entry of `Widths`, where all of `when` hold."""

    size: str
    count: int = 1
    when: tuple[When, ...] = ()
    sparse: bool | None = None
    """In a layer: as in `GatePattern`."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Where a family's config keeps its sizes: names in order of preference.

    An empty tuple means that no config of the family can say that size. What is not said follows
    from the others: as many groups as heads, an equal share of the hidden size for each head.
    """

    layers: tuple[str, ...] = ("num_hidden_layers",)
    hidden: tuple[str, ...] = ("hidden_size",)
    heads: tuple[str, ...] = ("num_attention_heads",)
    groups: tuple[str, ...] = ("num_key_value_heads",)
    head: tuple[str, ...] = ("head_dim",)
    channels: tuple[str, ...] = ("intermediate_size",)
    channels_by_hidden: int = 0
    """Channels per element of the hidden size where the config is silent; 0: it may not be."""

    experts: tuple[str, ...] = ()
    shared_channels: tuple[str, ...] = ()
    """Of an expert that every token takes."""

    dense_channels: tuple[str, ...] = ()
    """Of the MLP in layers without experts."""

    one_group: tuple[When, ...] = ()
    """Where all of these hold, all heads share one key and one value, whatever `groups` says."""


@dataclass(frozen=True, slots=True)
class Family:
    """What must be known of an architecture to prune it; no code of its own.

    Attributes:
        architecture: the name in the config's `architectures`.
        patterns: the gates of every layer, attention before MLP, also those that cannot be pruned.
        vectors: what else a layer has: norms, routers.
        others: what the model has besides layers, embeddings and head: norms, positions.
        keys: names of the sizes in the config.
        layers: path of the list of decoder layers.
        backbone: path of the module that gives the hidden states before the head.
        norm: name of the backbone's last norm, whose output goes to the head.
        norm_adds: what that norm adds to its weight before it multiplies.
        head: path of the module that turns hidden states into logits.
        logits_cap: config key of a bound c: logits become c * tanh(logits / c).
        logits_divisor: config key of what logits are divided by.
        attention: attention implementation to run with, as transformers names it.
        adds_outputs: whether a layer adds what its output projections give to the hidden states
            that it got, with no norm between.
        outputs_factor: config key of what they are multiplied by before.
        positions: rows of a table of learned positions, beyond the context's; None: no table.
        stand_in: architecture that computes the same and accepts any number of heads, for a
            family whose config refuses head counts that do not divide the hidden size.
    """

    architecture: str
    patterns: tuple[GatePattern, ...]
    vectors: tuple[Vectors, ...] = (Vectors("hidden", 2),)
    others: tuple[Vectors, ...] = (Vectors("hidden"),)
    keys: Keys = Keys()
    layers: str = "model.layers"
    backbone: str = "model"
    norm: str = "norm"
    norm_adds: float = 0.0
    head: str = "lm_head"
    logits_cap: str = ""
    logits_divisor: str = ""
    attention: str = "sdpa"
    adds_outputs: When | bool = True
    outputs_factor: str = ""
    positions: int | None = None
    stand_in: str | None = None

    def gates(self, experts: ExpertUnits = ExpertUnits.CHANNELS) -> tuple[GatePattern, ...]:
        """The patterns of which units can be removed, with these units in a mixture."""
        return tuple(
            pattern
            for pattern in self.patterns
            if not pattern.fixed and pattern.experts in (None, experts)
        )


_HEADS_OF_HIDDEN = "its config gives every head an equal share of the hidden size"
_NOT_AN_EXPERT = "in a mixture, only its experts are, whole or by their channels"
_NORM_OVER_HEADS = "its query and key norms run over all heads together"


def _attention(
    producers: tuple[Producer, ...] = (
        Producer("self_attn.q_proj", ("query_rows",)),
        Producer("self_attn.k_proj", ("head_rows",)),
        Producer("self_attn.v_proj", ("head_rows",)),
    ),
    output: str = "self_attn.o_proj",
    **settings: Any,
) -> GatePattern:
    return GatePattern(GateKind.ATTENTION, output, "groups", "query_rows", producers, **settings)


def _mlp(
    *producers: str,
    output: str = "mlp.down_proj",
    units: str = "channels",
    bias: When | bool = False,
    **settings: Any,
) -> GatePattern:
    return GatePattern(
        GateKind.MLP,
        output,
        units,
        "channel_rows",
        tuple(
            Producer(path, ("channel_rows",))
            for path in producers or ("mlp.gate_proj", "mlp.up_proj")
        ),
        producer_bias=bias,
        output_bias=bias,
        **settings,
    )


ATTENTION = _attention(producer_bias=When("attention_bias"), output_bias=When("attention_bias"))
BIASLESS_ATTENTION = _attention()
BIASED_ATTENTION = _attention(producer_bias=True)
MLP = _mlp(bias=When("mlp_bias"))
BIASLESS_MLP = _mlp()
TALL_MLP = _mlp("mlp.dense_h_to_4h", output="mlp.dense_4h_to_h", bias=True)

EXPERTS = _mlp(
    "mlp.experts.{}.gate_proj",
    "mlp.experts.{}.up_proj",
    output="mlp.experts.{}.down_proj",
    copies="experts",
    sparse=True,
    experts=ExpertUnits.CHANNELS,
)
WHOLE_EXPERTS = GatePattern(
    GateKind.EXPERTS,
    "mlp.gate.choice",
    "experts",
    "one",
    (Producer("mlp.gate", ("one",)),),
    sparse=True,
    lists=("mlp.experts",),
    list_price="expert",
    weightless=True,
    experts=ExpertUnits.WHOLE,
)
SHARED_EXPERT = _mlp(
    "mlp.shared_expert.gate_proj",
    "mlp.shared_expert.up_proj",
    output="mlp.shared_expert.down_proj",
    units="shared_channels",
    fixed=_NOT_AN_EXPERT,
    sparse=True,
)
MLP_AMONG_EXPERTS = replace(
    BIASLESS_MLP, units="dense_channels", fixed=_NOT_AN_EXPERT, sparse=False
)

_LAYER_NORM = 2
"""Vectors in a norm with a bias."""

_QK_NORMS = Vectors("head_rows", 2)

_FAMILIES = (
    Family("LlamaForCausalLM", (ATTENTION, MLP), stand_in="MistralForCausalLM"),
    Family("MistralForCausalLM", (BIASLESS_ATTENTION, BIASLESS_MLP)),
    Family("Qwen2ForCausalLM", (BIASED_ATTENTION, BIASLESS_MLP)),
    Family("Qwen3ForCausalLM", (ATTENTION, BIASLESS_MLP), (Vectors("hidden", 2), _QK_NORMS)),
    Family(
        "Gemma2ForCausalLM",
        (ATTENTION, BIASLESS_MLP),
        (Vectors("hidden", 4),),
        norm_adds=1.0,
        logits_cap="final_logit_softcapping",
        attention="eager",
        adds_outputs=False,
    ),
    Family(
        "Gemma3ForCausalLM",
        (ATTENTION, BIASLESS_MLP),
        (Vectors("hidden", 4), _QK_NORMS),
        norm_adds=1.0,
        logits_cap="final_logit_softcapping",
        adds_outputs=False,
    ),
    Family(
        "Phi3ForCausalLM",
        (
            _attention(
                (Producer("self_attn.qkv_proj", ("query_rows", "head_rows", "head_rows")),),
                counts=(
                    Count("self_attn", "num_attention_heads", "heads_per_group", in_config=True),
                    Count("self_attn", "num_key_value_heads", "one"),
                ),
            ),
            replace(
                _mlp(),
                producers=(Producer("mlp.gate_up_proj", ("channel_rows", "channel_rows")),),
            ),
        ),
    ),
    Family(
        "Olmo2ForCausalLM",
        (replace(ATTENTION, fixed=_NORM_OVER_HEADS), BIASLESS_MLP),
        (Vectors("hidden", 2), Vectors("all_query_rows"), Vectors("all_head_rows")),
        adds_outputs=False,
    ),
    Family(
        "GraniteForCausalLM",
        (ATTENTION, MLP),
        logits_divisor="logits_scaling",
        outputs_factor="residual_multiplier",
    ),
    Family(
        "StableLmForCausalLM",
        (_attention(producer_bias=When("use_qkv_bias"), fixed=_HEADS_OF_HIDDEN), BIASLESS_MLP),
        (
            Vectors("hidden", _LAYER_NORM),
            Vectors("hidden", _LAYER_NORM, (When("use_parallel_residual", False),)),
            Vectors("all_query_rows", 1, (When("qk_layernorm"),)),
            Vectors("all_head_rows", 1, (When("qk_layernorm"),)),
        ),
        (Vectors("hidden", _LAYER_NORM),),
        Keys(head=()),
    ),
    Family(
        "GPT2LMHeadModel",
        (
            _attention(
                (Producer("attn.c_attn", ("query_rows", "head_rows", "head_rows")),),
                "attn.c_proj",
                producer_bias=True,
                output_bias=True,
                fixed=_HEADS_OF_HIDDEN,
            ),
            _mlp("mlp.c_fc", output="mlp.c_proj", bias=True),
        ),
        (Vectors("hidden", 2 * _LAYER_NORM),),
        (Vectors("hidden", _LAYER_NORM), Vectors("position_table")),
        Keys(
            ("n_layer", "num_hidden_layers"),
            ("n_embd", "hidden_size"),
            ("n_head", "num_attention_heads"),
            (),
            (),
            ("n_inner",),
            channels_by_hidden=4,
        ),
        layers="transformer.h",
        backbone="transformer",
        norm="ln_f",
        positions=0,
    ),
    Family(
        "OPTForCausalLM",
        (
            _attention(
                output="self_attn.out_proj",
                producer_bias=When("enable_bias", default=True),
                output_bias=When("enable_bias", default=True),
                fixed=_HEADS_OF_HIDDEN,
            ),
            _mlp("fc1", output="fc2", bias=When("enable_bias", default=True)),
        ),
        (
            Vectors(
                "hidden", 2 * _LAYER_NORM, (When("layer_norm_elementwise_affine", default=True),)
            ),
        ),
        (
            Vectors(
                "hidden",
                _LAYER_NORM,
                (
                    When("layer_norm_elementwise_affine", default=True),
                    When("do_layer_norm_before", default=True),
                    When("_remove_final_layer_norm", False),
                ),
            ),
            Vectors("position_table"),
            Vectors("embedding_bridge", 2),
        ),
        Keys(groups=(), head=(), channels=("ffn_dim",)),
        layers="model.decoder.layers",
        backbone="model.decoder",
        norm="final_layer_norm",
        adds_outputs=When("do_layer_norm_before", default=True),
        positions=2,
    ),
    Family(
        "GPTNeoXForCausalLM",
        (
            _attention(
                (Producer("attention.query_key_value", ("fused_rows",)),),
                "attention.dense",
                producer_bias=When("attention_bias", default=True),
                output_bias=When("attention_bias", default=True),
                fixed=_HEADS_OF_HIDDEN,
            ),
            TALL_MLP,
        ),
        (Vectors("hidden", 2 * _LAYER_NORM),),
        (Vectors("hidden", _LAYER_NORM),),
        Keys(groups=(), head=()),
        layers="gpt_neox.layers",
        backbone="gpt_neox",
        norm="final_layer_norm",
    ),
    Family(
        "FalconForCausalLM",
        (
            _attention(
                (Producer("self_attention.query_key_value", ("fused_rows",)),),
                "self_attention.dense",
                producer_bias=When("bias"),
                output_bias=When("bias"),
                fixed=_HEADS_OF_HIDDEN,
            ),
            replace(TALL_MLP, producer_bias=When("bias"), output_bias=When("bias")),
        ),
        (
            Vectors("hidden", _LAYER_NORM),
            Vectors("hidden", _LAYER_NORM, (When("parallel_attn", False, default=True),)),
            Vectors(
                "hidden",
                _LAYER_NORM,
                (
                    When("parallel_attn", default=True),
                    When("new_decoder_architecture"),
                    When("num_ln_in_parallel_attn", 2, default=2),
                ),
            ),
            Vectors(
                "hidden",
                _LAYER_NORM,
                (
                    When("parallel_attn", default=True),
                    When("new_decoder_architecture", False),
                    When("num_ln_in_parallel_attn", 2),
                ),
            ),
        ),
        (Vectors("hidden", _LAYER_NORM),),
        Keys(
            hidden=("n_embed", "hidden_size"),
            groups=("num_kv_heads",),
            head=(),
            channels=("ffn_hidden_size",),
            channels_by_hidden=4,
            one_group=(
                When("multi_query", default=True),
                When("new_decoder_architecture", False),
            ),
        ),
        layers="transformer.h",
        backbone="transformer",
        norm="ln_f",
    ),
    Family(
        "BloomForCausalLM",
        (
            _attention(
                (Producer("self_attention.query_key_value", ("fused_rows",)),),
                "self_attention.dense",
                producer_bias=True,
                output_bias=True,
                fixed=_HEADS_OF_HIDDEN,
            ),
            TALL_MLP,
        ),
        (Vectors("hidden", 2 * _LAYER_NORM),),
        (Vectors("hidden", 2 * _LAYER_NORM),),
        Keys(
            ("n_layer", "num_hidden_layers"),
            ("n_embed", "hidden_size"),
            ("n_head", "num_attention_heads"),
            (),
            (),
            (),
            channels_by_hidden=4,
        ),
        layers="transformer.h",
        backbone="transformer",
        norm="ln_f",
        attention="eager",
        adds_outputs=When("apply_residual_connection_post_layernorm", False),
    ),
    Family(
        "MixtralForCausalLM",
        (BIASLESS_ATTENTION, EXPERTS, WHOLE_EXPERTS),
        keys=Keys(experts=("num_local_experts", "num_experts")),
    ),
    Family(
        "Qwen2MoeForCausalLM",
        (
            _attention(producer_bias=When("qkv_bias", default=True)),
            EXPERTS,
            WHOLE_EXPERTS,
            SHARED_EXPERT,
            MLP_AMONG_EXPERTS,
        ),
        (Vectors("hidden", 2), Vectors("hidden", sparse=True)),
        keys=Keys(
            channels=("moe_intermediate_size",),
            experts=("num_experts", "num_local_experts"),
            shared_channels=("shared_expert_intermediate_size",),
            dense_channels=("intermediate_size",),
        ),
    ),
    Family(
        "Qwen3MoeForCausalLM",
        (ATTENTION, EXPERTS, WHOLE_EXPERTS, MLP_AMONG_EXPERTS),
        (Vectors("hidden", 2), _QK_NORMS),
        keys=Keys(
            channels=("moe_intermediate_size",),
            experts=("num_local_experts", "num_experts"),
            dense_channels=("intermediate_size",),
        ),
    ),
)

FAMILIES: Mapping[str, Family] = {family.architecture: family for family in _FAMILIES}


@dataclass(frozen=True, slots=True)
class Widths:
    """The sizes of a dense model that decide what its units are; all in number of elements."""

    layers: int
    hidden: int
    groups: int
    channels: int
    query_rows: int
    """Rows of one group's queries."""

    head_rows: int
    """Rows of one head: of a group's keys, or of its values."""

    experts: int = 0
    sparse: tuple[bool, ...] = ()
    """Of each layer, whether it has experts; empty for a model without any."""

    shared_channels: int = 0
    dense_channels: int = 0
    positions: int = 0
    embedding: int = 0
    """Length of a token's embedding where it is not the hidden size; else 0."""

    channel_rows: int = 1
    one: int = 1

    @property
    def heads_per_group(self) -> int:
        """Query heads of one group."""
        return self.query_rows // self.head_rows

    @property
    def fused_rows(self) -> int:
        """Rows of one group's queries, keys and values."""
        return self.query_rows + 2 * self.head_rows

    @property
    def all_query_rows(self) -> int:
        """Rows of all queries."""
        return self.groups * self.query_rows

    @property
    def all_head_rows(self) -> int:
        """Rows of all keys, or of all values."""
        return self.groups * self.head_rows

    @property
    def expert(self) -> int:
        """Parameters of one expert."""
        return 3 * self.hidden * self.channels

    def layers_with(self, sparse: bool | None) -> int:
        """How many layers have experts, or have none; all for None."""
        return self.layers if sparse is None else self.sparse.count(sparse)

    @property
    def position_table(self) -> int:
        """Parameters of the learned positions."""
        return self.positions * self.hidden

    @property
    def embedding_bridge(self) -> int:
        """Parameters between embeddings and hidden states of different length."""
        return self.embedding * self.hidden


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
        cure=f"choose a model of one of these; {PAGE} says how to add one",
    )


def widths_of(config: Mapping[str, Any]) -> Widths:
    """The widths of a dense model, from its config.

    Raises:
        InvalidModelError: a size is missing, not positive, or the heads do not divide into groups.
        UnsupportedModelError: as `family_of`.
    """
    family = family_of(config)
    keys = family.keys
    heads = _size(config, keys.heads)
    hidden = _size(config, keys.hidden)
    groups = 1 if _all_hold(keys.one_group, config) else _size(config, keys.groups, heads)
    head_rows = _size(config, keys.head, hidden // heads)
    if heads % groups:
        raise InvalidModelError(
            f"{keys.heads[0]} must be a multiple of {keys.groups[0]} ({groups})",
            field="model.source",
            value=heads,
            cure="repair the model's config.json",
        )
    embedding = _size(config, ("word_embed_proj_dim",), hidden)
    return Widths(
        layers=_size(config, keys.layers),
        hidden=hidden,
        groups=groups,
        channels=_size(config, keys.channels, keys.channels_by_hidden * hidden),
        experts=_size(config, keys.experts) if keys.experts else 0,
        sparse=_sparse(config, _size(config, keys.layers)) if keys.experts else (),
        shared_channels=_size(config, keys.shared_channels) if keys.shared_channels else 0,
        dense_channels=_size(config, keys.dense_channels) if keys.dense_channels else 0,
        query_rows=heads // groups * head_rows,
        head_rows=head_rows,
        positions=_positions(config, family),
        embedding=0 if embedding == hidden else embedding,
    )


def _size(config: Mapping[str, Any], keys: tuple[str, ...], default: int = 0) -> int:
    """What the first of these entries says that says anything, or `default`.

    Raises:
        InvalidModelError: that is no positive whole number.
    """
    said = [key for key in keys if config.get(key) is not None]
    value = config[said[0]] if said else default or None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidModelError(
            f"{(said or keys)[0]} in the model's config must be a positive whole number",
            field="model.source",
            value=value,
            cure="repair the model's config.json",
        )
    return value


def _sparse(config: Mapping[str, Any], layers: int) -> tuple[bool, ...]:
    """Of each layer of a mixture, whether it has experts."""
    without, step = config.get("mlp_only_layers") or (), config.get("decoder_sparse_step") or 1
    return tuple(layer not in without and (layer + 1) % step == 0 for layer in range(layers))


def _positions(config: Mapping[str, Any], family: Family) -> int:
    """Rows of the table of learned positions; 0 where there is none."""
    return 0 if family.positions is None else _size(config, _CONTEXT) + family.positions


def holds(condition: When | bool, config: Mapping[str, Any]) -> bool:
    """Whether a condition holds for the model of a config."""
    if isinstance(condition, bool):
        return condition
    found = config.get(condition.key)
    return bool((condition.default if found is None else found) == condition.value)


def _all_hold(conditions: tuple[When, ...], config: Mapping[str, Any]) -> bool:
    """Whether there are conditions and all of them hold."""
    return bool(conditions) and all(holds(condition, config) for condition in conditions)


def unit_price(pattern: GatePattern, widths: Widths, config: Mapping[str, Any]) -> int:
    """Parameters, biases included, that go when one unit of a gate goes."""
    inputs = widths.hidden + holds(pattern.producer_bias, config)
    rows = sum(getattr(widths, size) for p in pattern.producers for size in p.sections)
    outputs = 0 if pattern.weightless else widths.hidden
    entries = getattr(widths, pattern.list_price) if pattern.list_price else 0
    return int(rows * inputs + outputs * getattr(widths, pattern.columns) + entries)


def non_embedding_parameters(config: Mapping[str, Any]) -> int:
    """Parameters of a dense model that are neither in the input embedding nor in the output head.

    Raises:
        InvalidModelError: as `widths_of`.
        UnsupportedModelError: as `family_of`.
    """
    family, widths = family_of(config), widths_of(config)
    total = sum(_size_of(part, widths, config) for part in family.others)
    for part in family.vectors:
        total += widths.layers_with(part.sparse) * _size_of(part, widths, config)
    for pattern in family.patterns:
        if pattern.experts is ExpertUnits.CHANNELS:
            continue  # part of whole experts
        gate = getattr(widths, pattern.units) * unit_price(pattern, widths, config)
        gate += widths.hidden * holds(pattern.output_bias, config)
        total += gates_like(pattern, widths) * gate
    return total


def embedding_parameters(config: Mapping[str, Any]) -> int:
    """Weights of the input embedding and of the output head; tied ones count once.

    Raises:
        InvalidModelError: as `widths_of`.
        UnsupportedModelError: as `family_of`.
    """
    widths = widths_of(config)
    # A config leaves out what transformers takes for granted, which is that they are tied.
    ends = 1 if config.get("tie_word_embeddings", True) else 2
    return ends * _size(config, ("vocab_size",)) * (widths.embedding or widths.hidden)


def gates_like(pattern: GatePattern, widths: Widths) -> int:
    """How many gates of a pattern the whole model has."""
    copies = getattr(widths, pattern.copies) if pattern.copies else 1
    return int(widths.layers_with(pattern.sparse) * copies)


def _size_of(part: Vectors, widths: Widths, config: Mapping[str, Any]) -> int:
    there = all(holds(condition, config) for condition in part.when)
    return int(part.count * getattr(widths, part.size)) if there else 0


ALIGNMENTS = (128, 64, 32, 16, 8)
"""Multiples that programs like a width to be, the best first: 128 is a tile of matrix kernels, 32
a block of GGUF's quantised weights, and below 8 half precision is read slowly."""

BLOCKS = 32
"""So many an MLP is made of at least where no alignment is asked for: fewer would be too coarse a
choice."""


def alignment_of(channels: int) -> int:
    """The alignment of an MLP where none is asked for: the best one that the dense width, on one
    device, is a multiple of and has enough blocks of; 1 where it is too narrow for any."""
    fitting = (a for a in ALIGNMENTS if channels % a == 0 and channels >= BLOCKS * a)
    return next(fitting, 1)


def block_of(kind: GateKind, units: int, align: int | None, devices: int) -> int:
    """Units of a gate that go at once: all widths are multiples of it.

    Args:
        kind: of the gate.
        units: of it in the dense model.
        align: widths of MLPs on each device are multiples of this; None: of `alignment_of` them.
        devices: that share the units of attention and MLPs; whole experts stay whole.
    """
    if kind is GateKind.MLP:
        return (align or alignment_of(units // devices)) * devices
    return devices if kind is GateKind.ATTENTION else 1


def reachable_sparsity(
    config: Mapping[str, Any],
    align: int | None,
    experts: ExpertUnits = ExpertUnits.CHANNELS,
    devices: int = 1,
) -> float:
    """The largest share of the non-embedding parameters that any plan can remove; arguments and
    errors as of `removable_parameters`."""
    most = removable_parameters(config, align, experts, devices)
    return most / non_embedding_parameters(config)


def removable_parameters(
    config: Mapping[str, Any],
    align: int | None,
    experts: ExpertUnits = ExpertUnits.CHANNELS,
    devices: int = 1,
) -> int:
    """How many parameters any plan can remove.

    A gate keeps at least one block of units, and a layer all that its family fixes.

    Args:
        config: of the dense model.
        align: widths of MLPs are multiples of this, on each device; None: by `alignment_of`.
        experts: what the units of a mixture are.
        devices: that share the units.

    Raises:
        UnreachableTargetError: a block is wider than what the model has.
    """
    family, widths = family_of(config), widths_of(config)
    kinds = {pattern.kind for pattern in family.gates(experts)}
    if GateKind.MLP in kinds and align is not None and align > widths.channels:
        raise UnreachableTargetError(
            "the alignment is wider than the model's MLP",
            field="pruning.align",
            value=align,
            allowed=f"1 to {widths.channels}",
        )
    removable = 0
    for pattern in family.gates(experts):
        dense = getattr(widths, pattern.units)
        block = block_of(pattern.kind, dense, align, devices)
        units = dense - block
        if units < 0:
            each = block // devices
            raise UnreachableTargetError(
                f"a layer has {dense} units of {pattern.kind}, too few for so many devices",
                field="pruning.tensor_parallel",
                value=devices,
                allowed=f"1 to {dense // each} for this model",
                cure="fewer devices, or a smaller pruning.align",
            )
        removable += gates_like(pattern, widths) * units * unit_price(pattern, widths, config)
    return removable


def context_of(config: Mapping[str, Any]) -> int | None:
    """Tokens of the longest sequence that the model was made for; None where nothing is said."""
    said = [config[key] for key in _CONTEXT if isinstance(config.get(key), int)]
    return said[0] if said else None


_CONTEXT = ("max_position_embeddings", "n_positions")
"""Names under which configs say how long a sequence the model was made for."""


def require_context(config: Mapping[str, Any], sequence_length: int) -> None:
    """Refuse sequences that are longer than the model was made for.

    Raises:
        InvalidCalibrationError: `sequence_length` exceeds the context that the config says.
    """
    context = context_of(config)
    if context is not None and sequence_length > context:
        raise InvalidCalibrationError(
            "longer than the model's context",
            field="calibration.sequence_length",
            value=sequence_length,
            allowed=f"8 to {context} for this model",
        )


def fixed_parts(config: Mapping[str, Any]) -> str:
    """What a family never prunes, and why, for the end of a sentence."""
    family = family_of(config)
    fixed = dict.fromkeys((pattern.kind, pattern.fixed) for pattern in family.patterns)
    return "".join(
        f"; the {kind} of {family.architecture} is never pruned: {reason}"
        for kind, reason in fixed
        if reason
    )
