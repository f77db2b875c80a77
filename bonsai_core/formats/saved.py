"""A saved folder as exporters see it: its config, the widths of its layers, tensors by name."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig

from bonsai_core.errors import InvalidModelError, UnsupportedExportError
from bonsai_core.export import MANIFEST
from bonsai_core.quiet import quiet
from bonsai_core.registration import register

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""By `model_type`: those whose block other formats have, too."""


class LayerWidths(NamedTuple):
    """What may differ between layers."""

    heads: int
    groups: int
    channels: int


@dataclass(frozen=True, slots=True)
class SavedFolder:
    """A folder of `config.json` and safetensors, pruned or dense, whose layers are Llama-like.

    Attributes:
        folder: where it is.
        config: of the whole model, its own class; do not ask it for what differs between layers.
        family: `model_type` of the family, without our prefix.
        layers: widths of each.
        tensors: by name, each readable with `get_slice` and `get_tensor`.
        manifest: `bonsai.json`; empty for a model that was not pruned here.
    """

    folder: Path
    config: Any
    family: str
    layers: tuple[LayerWidths, ...]
    tensors: dict[str, Any]
    manifest: dict[str, Any]

    @property
    def uniform(self) -> bool:
        """Whether all layers have the same widths."""
        return len(set(self.layers)) == 1

    @property
    def head_rows(self) -> int:
        """Rows of one head."""
        return int(self.first_layer.head_dim or self.hidden // self.first_layer.num_attention_heads)

    @property
    def hidden(self) -> int:
        """D, the hidden size."""
        return int(self.config.hidden_size)

    @property
    def first_layer(self) -> Any:
        """The config as its first layer sees it: with a number of heads."""
        return self.config.per_layer_config[0] if _is_per_layer(self.config) else self.config

    @property
    def rope(self) -> dict[str, Any]:
        """The rotary settings: `rope_type`, `rope_theta` and what the type needs."""
        return dict(self.config.rope_parameters)

    @property
    def tied(self) -> bool:
        """Whether the head is the embedding."""
        return "lm_head.weight" not in self.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, which is not read."""
        return tuple(self.tensors[name].get_slice(name).get_shape())

    def tensor(self, name: str) -> Tensor:
        """A tensor as it is stored."""
        tensor: Tensor = self.tensors[name].get_tensor(name)
        return tensor


@contextmanager
def opened(folder: Path) -> Iterator[SavedFolder]:
    """Open a folder for export; its files stay open meanwhile.

    Raises:
        InvalidModelError: it is no folder of a saved model, or its config contradicts itself.
        UnsupportedExportError: its layers are not Llama-like.
    """
    config = _config(folder)
    family = config.model_type.removeprefix("bonsai_")
    if family not in FAMILIES:
        raise UnsupportedExportError(
            "this family loads in transformers and vLLM only",
            field="folder",
            value=config.model_type,
            allowed=", ".join(FAMILIES),
            cure="serve the folder itself, as docs/serving.md shows",
        )
    if config.hidden_act not in ("silu", "swish"):
        raise UnsupportedExportError(
            "other formats' blocks have one activation",
            field="config.hidden_act",
            value=config.hidden_act,
            allowed="silu",
            cure="serve the folder itself, as docs/serving.md shows",
        )
    with ExitStack() as files:
        tensors = {
            name: file
            for path in sorted(folder.glob("*.safetensors"))
            for file in [files.enter_context(safe_open(path, framework="pt"))]
            for name in file.keys()  # noqa: SIM118 - not a dictionary
        }
        if not tensors:
            raise _invalid(folder, "it has no safetensors")
        yield SavedFolder(folder, config, family, _layers(config), tensors, _manifest(folder))


@quiet()
def _config(folder: Path) -> Any:
    register()
    if not (folder / "config.json").is_file():
        raise _invalid(folder, "it has no config.json")
    try:
        return AutoConfig.from_pretrained(folder)
    except Exception as error:  # checks of configs raise kinds of their own
        raise _invalid(folder, f"its config.json is refused: {error}") from error


def _invalid(folder: Path, problem: str) -> InvalidModelError:
    return InvalidModelError(
        problem,
        field="folder",
        value=str(folder),
        allowed="the folder of a saved model",
        cure="give the folder that `bonsai prune` or `bonsai download` wrote",
    )


def _is_per_layer(config: Any) -> bool:
    return str(config.model_type).startswith("bonsai_")


def _layers(config: Any) -> tuple[LayerWidths, ...]:
    each = (
        list(config.per_layer_config)
        if _is_per_layer(config)
        else [config] * config.num_hidden_layers
    )
    return tuple(
        LayerWidths(layer.num_attention_heads, layer.num_key_value_heads, layer.intermediate_size)
        for layer in each
    )


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found
