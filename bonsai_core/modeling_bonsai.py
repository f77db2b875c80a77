"""Stock language models whose layers differ in width: classes for transformers, family by family.

A structurally pruned model keeps fewer heads, key-value heads or MLP channels in some layers than
in others. The classes here build each decoder layer from that layer's own widths, given by the
config's `per_layer_config`; everything else is the stock implementation in transformers.

`FAMILIES` says what must be known of each family; its classes are made when they are asked for, so
that a reader imports the code of one family only: as attributes of this module, by the names in
the config's `auto_map` such as `BonsaiLlamaForCausalLM`, or all three by `classes_of`.

This file is copied beside the weights, so that `trust_remote_code=True` is all a reader needs: it
imports nothing but torch, transformers, huggingface_hub and the standard library.
"""

import copy
import functools
import importlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel

# The name under which `auto_map` finds this file in a folder of weights.
MODULE_NAME = "modeling_bonsai"

HEADS = ("num_attention_heads", "num_key_value_heads")


class Family(NamedTuple):
    """What must be known of a stock family to build its layers one by one.

    Attributes:
        package: of transformers.models.
        stem: what its class names begin with.
        config: name of its config class, if that is not stem and "Config".
        backbone: name of its model without a head, if not stem and "Model".
        causal_lm: name of its language model, if not stem and "ForCausalLM".
        layer: name of its decoder layer, if not stem and "DecoderLayer".
        layers: path of the list of layers in the backbone.
        widths: the config's names for the sizes that may differ between layers.
        resized: two linear layers, into the MLP's channels and out of them, that the stock class
            builds without asking the config for the last of `widths`.
        experts: paths of the router and of the experts in a layer of a mixture. How many experts
            there are, and the width of each, is given by `expert_widths`, the last of `widths`.
        reads_heads: its attention asks the config for the number of heads whenever it runs.
        caps_scores: its attention caps scores, which scaled_dot_product_attention cannot do.
    """

    package: str
    stem: str
    config: str = ""
    backbone: str = ""
    causal_lm: str = ""
    layer: str = ""
    layers: str = "layers"
    widths: tuple[str, ...] = (*HEADS, "intermediate_size")
    resized: tuple[str, ...] = ()
    experts: tuple[str, ...] = ()
    reads_heads: bool = False
    caps_scores: bool = False

    @property
    def class_names(self) -> dict[str, str]:
        """The names of the classes made here, under those of the Auto classes they stand for."""
        return {
            "AutoConfig": f"Bonsai{self.stem}Config",
            "AutoModel": f"Bonsai{self.stem}Model",
            "AutoModelForCausalLM": f"Bonsai{self.causal_lm or self.stem + 'ForCausalLM'}",
        }

    def stock(self, name: str, default: str) -> Any:
        """A stock class of the family: the one named, or stem and default."""
        kind = "configuration" if default == "Config" else "modeling"
        module = f"transformers.models.{self.package}.{kind}_{self.package}"
        return getattr(importlib.import_module(module), name or self.stem + default)


_CHANNELS_ONLY = ("intermediate_size",)
_MIXTURE: Any = {"widths": (*HEADS, "expert_widths"), "experts": ("mlp.gate", "mlp.experts")}
FAMILIES = {
    "bonsai_llama": Family("llama", "Llama"),
    "bonsai_mistral": Family("mistral", "Mistral"),
    "bonsai_qwen2": Family("qwen2", "Qwen2"),
    "bonsai_qwen3": Family("qwen3", "Qwen3"),
    "bonsai_gemma2": Family("gemma2", "Gemma2", caps_scores=True),
    "bonsai_gemma3_text": Family(
        "gemma3", "Gemma3", config="Gemma3TextConfig", backbone="Gemma3TextModel"
    ),
    "bonsai_phi3": Family("phi3", "Phi3", reads_heads=True),
    "bonsai_olmo2": Family("olmo2", "Olmo2", widths=_CHANNELS_ONLY),
    "bonsai_granite": Family("granite", "Granite"),
    "bonsai_stablelm": Family("stablelm", "StableLm", widths=_CHANNELS_ONLY),
    "bonsai_gpt2": Family(
        "gpt2",
        "GPT2",
        causal_lm="GPT2LMHeadModel",
        layer="GPT2Block",
        layers="h",
        widths=("n_inner",),
    ),
    "bonsai_opt": Family("opt", "OPT", layers="decoder.layers", widths=("ffn_dim",)),
    "bonsai_gpt_neox": Family("gpt_neox", "GPTNeoX", layer="GPTNeoXLayer", widths=_CHANNELS_ONLY),
    "bonsai_falcon": Family("falcon", "Falcon", layers="h", widths=("ffn_hidden_size",)),
    "bonsai_bloom": Family(
        "bloom",
        "Bloom",
        layer="BloomBlock",
        layers="h",
        widths=_CHANNELS_ONLY,
        resized=("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    ),
    "bonsai_mixtral": Family("mixtral", "Mixtral", **_MIXTURE),
    "bonsai_qwen2_moe": Family("qwen2_moe", "Qwen2Moe", **_MIXTURE),
    "bonsai_qwen3_moe": Family("qwen3_moe", "Qwen3Moe", **_MIXTURE),
}
"""By the `model_type` of the pruned config."""


def require_widths(layer: int, widths: Mapping[str, Any]) -> None:
    """Refuse widths that no decoder layer can have; None stands for the stock class's own.

    Args:
        layer: its index.
        widths: numbers, or for experts a list of them.

    Raises:
        ValueError: a width is below one, or the heads do not divide evenly into key-value groups.
    """
    for name, value in widths.items():
        numbers = value if isinstance(value, list) else [1 if value is None else value]
        if min(numbers) < 1:
            raise ValueError(
                f"per_layer_config[{layer}].{name} is {value}; a layer keeps at least one "
                "key-value head with its query heads, and one MLP channel"
            )
    heads, groups = (widths.get(name) or 1 for name in HEADS)
    if heads % groups:
        raise ValueError(
            f"per_layer_config[{layer}].num_attention_heads is {heads}; it "
            f"must be a multiple of num_key_value_heads, which is {groups}"
        )


class _PerLayerConfig:
    """What the config of every family adds to the stock one.

    The global head counts and MLP width are those of the dense model; a layer that differs says so
    in `per_layer_config`, upstream's own field for it.
    """

    # Saving a config or a model copies this file into the folder, whoever loaded it and how.
    _auto_class = "AutoConfig"

    family: ClassVar[Family]
    head_dim: int | None
    hidden_size: int
    is_heterogeneous: bool
    model_type: str
    num_attention_heads: int
    per_layer_config: Any

    def __post_init__(self, **kwargs: Any) -> None:
        if HEADS[0] in self.family.widths and self.head_dim is None:
            # Said outright, because a layer's own number of heads no longer tells it.
            self.head_dim = self.hidden_size // self.num_attention_heads
        # Never absent, so that `per_layer_config` can always be read layer by layer: in older
        # releases of transformers it is None for a config that was given none.
        kwargs["per_layer_config"] = kwargs.get("per_layer_config") or {}
        super().__post_init__(**kwargs)  # type: ignore[misc]  # the stock config's
        if getattr(self, "auto_map", None) is None:
            self.auto_map = auto_map(self.model_type)

    def validate_architecture(self) -> None:
        """Check each layer's widths; replaces stock checks that read the global head count."""
        for layer, config in enumerate(self.per_layer_config):
            require_widths(layer, {name: getattr(config, name) for name in self.family.widths})

    def validate_rope(self) -> None:
        """Check the rotary settings by the dense widths: some stock checks read head counts."""
        dense = copy.copy(self)
        dense.per_layer_config = None
        super(_PerLayerConfig, dense).validate_rope()  # type: ignore[misc]  # the stock config's


class _LayerView:
    """The model's config as one layer sees it: with widths of its own, and all else shared."""

    def __init__(self, shared: PreTrainedConfig, widths: Mapping[str, int]) -> None:
        self.shared = shared
        self.widths = widths

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("shared", "widths"):
            raise AttributeError(name)  # while a copy is made
        return self.widths[name] if name in self.widths else getattr(self.shared, name)


class Expert(nn.Module):
    """A gated MLP without biases."""

    def __init__(self, hidden: int, width: int, activation: nn.Module) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, width, bias=False)
        self.up_proj = nn.Linear(hidden, width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)
        self.act_fn = activation

    def forward(self, states: Tensor) -> Tensor:
        """From and to [tokens, D]."""
        gated = self.act_fn(self.gate_proj(states)) * self.up_proj(states)
        out: Tensor = self.down_proj(gated)
        return out


class Experts(nn.ModuleList):
    """The experts of one layer as modules that may differ in width; stock classes fuse them.

    Args:
        hidden: D, the hidden size.
        widths: channels of each expert.
        activation: what gates the channels.
    """

    def __init__(self, hidden: int, widths: Sequence[int], activation: nn.Module) -> None:
        super().__init__([Expert(hidden, width, activation) for width in widths])

    def forward(self, states: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """The weighted sum of the experts chosen for each token; [tokens, D].

        Args:
            states: [tokens, D].
            chosen: [tokens, K], the numbers of the K experts that each token takes.
            weights: [tokens, K], their shares.
        """
        each = chosen.shape[1]
        parts = states.new_empty(chosen.numel(), states.shape[1])
        order = torch.argsort(chosen.flatten(), stable=True)
        loads = torch.bincount(chosen.flatten(), minlength=len(self)).tolist()
        for expert, places in zip(self, torch.split(order, loads), strict=True):
            # In training also without a token: every parameter gets a gradient, as in stock.
            if len(places) or self.training:
                parts[places] = expert(states[places // each])
        # Summed as stock classes do: in one order, and in float32 whatever the parts are in.
        weighted = parts.view(-1, each, states.shape[1]) * weights[:, :, None]
        return weighted.sum(dim=1).to(states.dtype)


class _PerLayerModel(PreTrainedModel):
    """What the backbone of every family changes: layers are built from their own widths."""

    _auto_class = "AutoModel"
    family: ClassVar[Family]

    def __init__(self, config: PreTrainedConfig) -> None:
        # The stock constructor would give all layers the same widths, and fails on a config that
        # has no single answer; so it gets one layer's config, and builds all but the layers.
        first = config.per_layer_config[0]
        stem = copy.copy(first)
        stem.num_hidden_layers = 0
        super().__init__(stem)
        config._attn_implementation = stem._attn_implementation
        config._experts_implementation = stem._experts_implementation
        # One config for all, so that `set_attn_implementation` reaches every layer; what differs
        # between layers is read when they are built, and an attribute of their modules then.
        _share(self, config)
        backbone = self.base_model
        layers = backbone.get_submodule(self.family.layers)
        for index, layer_config in enumerate(config.per_layer_config):
            layer = self._layer(layer_config, index)
            _share(layer, self._seen_by(layer_config, config))
            layers.append(layer)
        if hasattr(backbone, "rotary_emb"):
            # Rotary frequencies are computed again later, some from expressions that mention the
            # number of heads, which the global config refuses to say; any layer's config will do.
            backbone.rotary_emb.config = first
        self.post_init()

    def _get_static_cache_init_shape(self) -> None:
        """None: each layer of a static cache is made when it is first used, by what comes in.

        The stock answer is one number of key-value heads for all layers, in older releases of
        transformers, and for Falcon in newer ones a wrong number.
        """

    def _layer(self, config: PreTrainedConfig, index: int) -> nn.Module:
        """One decoder layer of the widths in its config."""
        family = self.family
        layer: Any = family.stock(family.layer, "DecoderLayer")(config, index)
        width, hidden = getattr(config, family.widths[-1]), config.hidden_size
        if family.resized and width is not None:
            into, out = family.resized
            layer.set_submodule(into, nn.Linear(hidden, width))
            layer.set_submodule(out, nn.Linear(width, hidden))
        if family.experts and width is not None:
            router, fused = (layer.get_submodule(path) for path in family.experts)
            layer.set_submodule(family.experts[1], Experts(hidden, width, fused.act_fn))
            router.weight = nn.Parameter(torch.empty(len(width), hidden))
            router.num_experts, router.top_k = len(width), min(router.top_k, len(width))
        return layer

    def _seen_by(self, layer_config: PreTrainedConfig, config: PreTrainedConfig) -> Any:
        """The config that a layer keeps."""
        if not self.family.reads_heads:
            return config
        return _LayerView(config, {name: getattr(layer_config, name) for name in HEADS})


def _share(root: nn.Module, config: Any) -> None:
    """Give one config to all modules that keep one."""
    for module in root.modules():
        if "config" in vars(module):
            module.config = config


class _PerLayerCausalLM(_PerLayerModel):
    """The same for a backbone inside a language model."""

    _auto_class = "AutoModelForCausalLM"


class AutoClasses(NamedTuple):
    """A family's classes, under the names of the Auto classes that stand for them."""

    AutoConfig: type[PreTrainedConfig]
    AutoModel: type[PreTrainedModel]
    AutoModelForCausalLM: type[PreTrainedModel]


@functools.cache
def classes_of(model_type: str) -> AutoClasses:
    """The classes of a family; made at the first call.

    Raises:
        KeyError: `model_type` is not a key of `FAMILIES`.
    """
    family = FAMILIES[model_type]
    names = family.class_names
    config_class = _config_class(model_type, names["AutoConfig"])
    own = {"__module__": __name__, "config_class": config_class, "family": family}
    if family.caps_scores:
        # Older releases of transformers take it by default, and leave out the caps.
        own["_supports_sdpa"] = False
    backbone = family.stock(family.backbone, "Model")
    causal_lm = family.stock(family.causal_lm, "ForCausalLM")
    return AutoClasses(
        config_class,
        type(names["AutoModel"], (_PerLayerModel, backbone), dict(own)),
        type(names["AutoModelForCausalLM"], (_PerLayerCausalLM, causal_lm), dict(own)),
    )


def _config_class(model_type: str, name: str) -> type[PreTrainedConfig]:
    family = FAMILIES[model_type]
    stock = family.stock(family.config, "Config")
    needed = (*family.widths, "head_dim") if HEADS[0] in family.widths else family.widths
    # Sizes that the stock class computes for itself.
    implicit = [field for field in needed if not hasattr(stock, field)]
    own = {
        "__module__": __name__,
        "__annotations__": {
            field: list[int] | None if field == "expert_widths" else int | None
            for field in implicit
        },
        **dict.fromkeys(implicit),
        "family": family,
        "model_type": model_type,
    }
    # `strict` fixes the list of checks for the class that it decorates: without it the stock
    # check would still run.
    made: type[PreTrainedConfig] = strict(type(name, (_PerLayerConfig, stock), own))
    return made


def __getattr__(name: str) -> Any:
    """The classes of all families, by name."""
    for model_type, family in FAMILIES.items():
        for auto_class, class_name in family.class_names.items():
            if name == class_name:
                return getattr(classes_of(model_type), auto_class)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def auto_map(model_type: str) -> dict[str, str]:
    """What `auto_map` in config.json must hold: Auto class to class in this file.

    Raises:
        KeyError: `model_type` is not a key of `FAMILIES`.
    """
    names = FAMILIES[model_type].class_names
    return {auto_class: f"{MODULE_NAME}.{name}" for auto_class, name in names.items()}
