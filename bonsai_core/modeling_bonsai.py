"""Llama, Mistral, Qwen2 and Qwen3 with heads and MLP widths of their own in every layer.

A structurally pruned model keeps fewer heads, key-value heads or MLP channels in some layers than
in others. The classes here build each decoder layer from that layer's own widths, given by the
config's `per_layer_config`; everything else is the stock implementation in transformers.

This file is copied beside the weights, so that `trust_remote_code=True` is all a reader needs: it
imports nothing but torch, transformers, huggingface_hub and the standard library.
"""

import copy
from typing import Any, ClassVar, NamedTuple

from huggingface_hub.dataclasses import strict
from torch import nn
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaDecoderLayer,
    LlamaForCausalLM,
    LlamaModel,
)
from transformers.models.mistral.configuration_mistral import MistralConfig
from transformers.models.mistral.modeling_mistral import (
    MistralDecoderLayer,
    MistralForCausalLM,
    MistralModel,
)
from transformers.models.qwen2.configuration_qwen2 import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import (
    Qwen2DecoderLayer,
    Qwen2ForCausalLM,
    Qwen2Model,
)
from transformers.models.qwen3.configuration_qwen3 import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import (
    Qwen3DecoderLayer,
    Qwen3ForCausalLM,
    Qwen3Model,
)

# The name under which `auto_map` finds this file in a folder of weights.
MODULE_NAME = "modeling_bonsai"


class LayerWidths(NamedTuple):
    """The sizes that may differ between layers, under the names that the config gives them."""

    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int


def require_widths(layer: int, widths: LayerWidths) -> None:
    """Refuse widths that no decoder layer can have.

    Raises:
        ValueError: a width is below one, or the heads do not divide evenly into key-value groups.
    """
    for name, value in widths._asdict().items():
        if value < 1:
            raise ValueError(
                f"per_layer_config[{layer}].{name} is {value}; a layer keeps at least one "
                "key-value head with its query heads, and one MLP channel"
            )
    if widths.num_attention_heads % widths.num_key_value_heads:
        raise ValueError(
            f"per_layer_config[{layer}].num_attention_heads is {widths.num_attention_heads}; it "
            f"must be a multiple of num_key_value_heads, which is {widths.num_key_value_heads}"
        )


class _PerLayerConfig:
    """What the config of every family adds to the stock one.

    The global head counts and MLP width are those of the dense model; a layer that differs says so
    in `per_layer_config`, upstream's own field for it.
    """

    # Saving a config or a model copies this file into the folder, whoever loaded it and how.
    _auto_class = "AutoConfig"

    head_dim: int | None
    hidden_size: int
    is_heterogeneous: bool
    model_type: str
    num_attention_heads: int
    per_layer_config: Any

    def __post_init__(self, **kwargs: Any) -> None:
        if self.head_dim is None:
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
            require_widths(layer, LayerWidths(*(getattr(config, n) for n in LayerWidths._fields)))

    def validate_rope(self) -> None:
        """Check the rotary settings by one layer's config: the stock check reads head counts."""
        if self.is_heterogeneous:
            self.per_layer_config[0].validate_rope()
        else:
            super().validate_rope()  # type: ignore[misc]  # the stock config's


class _PerLayerModel(PreTrainedModel):
    """What the backbone of every family changes: layers are built from their own widths."""

    _auto_class = "AutoModel"
    decoder_layer_class: ClassVar[type[nn.Module]]

    def __init__(self, config: PreTrainedConfig) -> None:
        # The stock constructor would give all layers the same widths, and fails on a config that
        # has no single answer; so it gets one layer's config, and builds all but the layers.
        first = config.per_layer_config[0]
        stem = copy.copy(first)
        stem.num_hidden_layers = 0
        super().__init__(stem)
        config._attn_implementation = stem._attn_implementation
        config._experts_implementation = stem._experts_implementation
        backbone = self.base_model
        for index, layer_config in enumerate(config.per_layer_config):
            backbone.layers.append(self.decoder_layer_class(layer_config, index))
        for module in self.modules():
            # One config for all, so that `set_attn_implementation` reaches every layer; what
            # differs between layers was read above and is an attribute of the module by now.
            if "config" in vars(module):
                module.config = config
        # Rotary frequencies are computed again later, some from expressions that mention the
        # number of heads, which the global config refuses to say; any layer's config will do.
        backbone.rotary_emb.config = first
        self.post_init()


class _PerLayerCausalLM(_PerLayerModel):
    """The same for a backbone inside a language model."""

    _auto_class = "AutoModelForCausalLM"


# A subclass needs a `strict` of its own: the decorator fixes the list of checks for the class that
# it decorates, so without it the stock check would still run.


@strict
class BonsaiLlamaConfig(_PerLayerConfig, LlamaConfig):
    """Llama with `per_layer_config`."""

    model_type = "bonsai_llama"


class BonsaiLlamaModel(_PerLayerModel, LlamaModel):
    """Llama's backbone with widths per layer."""

    config_class = BonsaiLlamaConfig
    decoder_layer_class = LlamaDecoderLayer


class BonsaiLlamaForCausalLM(_PerLayerCausalLM, LlamaForCausalLM):
    """Llama with widths per layer."""

    config_class = BonsaiLlamaConfig
    decoder_layer_class = LlamaDecoderLayer


@strict
class BonsaiMistralConfig(_PerLayerConfig, MistralConfig):
    """Mistral with `per_layer_config`."""

    model_type = "bonsai_mistral"


class BonsaiMistralModel(_PerLayerModel, MistralModel):
    """Mistral's backbone with widths per layer."""

    config_class = BonsaiMistralConfig
    decoder_layer_class = MistralDecoderLayer


class BonsaiMistralForCausalLM(_PerLayerCausalLM, MistralForCausalLM):
    """Mistral with widths per layer."""

    config_class = BonsaiMistralConfig
    decoder_layer_class = MistralDecoderLayer


@strict
class BonsaiQwen2Config(_PerLayerConfig, Qwen2Config):
    """Qwen2 with `per_layer_config`, and a `head_dim` which the stock config leaves implicit."""

    model_type = "bonsai_qwen2"
    head_dim: int | None = None


class BonsaiQwen2Model(_PerLayerModel, Qwen2Model):
    """Qwen2's backbone with widths per layer."""

    config_class = BonsaiQwen2Config
    decoder_layer_class = Qwen2DecoderLayer


class BonsaiQwen2ForCausalLM(_PerLayerCausalLM, Qwen2ForCausalLM):
    """Qwen2 with widths per layer."""

    config_class = BonsaiQwen2Config
    decoder_layer_class = Qwen2DecoderLayer


@strict
class BonsaiQwen3Config(_PerLayerConfig, Qwen3Config):
    """Qwen3 with `per_layer_config`."""

    model_type = "bonsai_qwen3"


class BonsaiQwen3Model(_PerLayerModel, Qwen3Model):
    """Qwen3's backbone with widths per layer."""

    config_class = BonsaiQwen3Config
    decoder_layer_class = Qwen3DecoderLayer


class BonsaiQwen3ForCausalLM(_PerLayerCausalLM, Qwen3ForCausalLM):
    """Qwen3 with widths per layer."""

    config_class = BonsaiQwen3Config
    decoder_layer_class = Qwen3DecoderLayer


class AutoClasses(NamedTuple):
    """A family's classes, under the names of the Auto classes that stand for them."""

    AutoConfig: type[PreTrainedConfig]
    AutoModel: type[PreTrainedModel]
    AutoModelForCausalLM: type[PreTrainedModel]


FAMILIES = {
    classes.AutoConfig.model_type: classes
    for classes in (
        AutoClasses(BonsaiLlamaConfig, BonsaiLlamaModel, BonsaiLlamaForCausalLM),
        AutoClasses(BonsaiMistralConfig, BonsaiMistralModel, BonsaiMistralForCausalLM),
        AutoClasses(BonsaiQwen2Config, BonsaiQwen2Model, BonsaiQwen2ForCausalLM),
        AutoClasses(BonsaiQwen3Config, BonsaiQwen3Model, BonsaiQwen3ForCausalLM),
    )
}


def auto_map(model_type: str) -> dict[str, str]:
    """What `auto_map` in config.json must hold: Auto class to class in this file.

    Raises:
        KeyError: `model_type` is not a key of `FAMILIES`.
    """
    return {
        auto_class: f"{MODULE_NAME}.{local_class.__name__}"
        for auto_class, local_class in FAMILIES[model_type]._asdict().items()
    }
