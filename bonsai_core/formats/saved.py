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

from bonsai_core.errors import InvalidModelError
from bonsai_core.folders import MANIFEST
from bonsai_core.formats.block import Block, require_family
from bonsai_core.quiet import quiet
from bonsai_core.registration import register


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
        block: what its layers compute.
        layers: widths of each.
        tensors: by name, each readable with `get_slice` and `get_tensor`.
        manifest: `bonsai.json`; empty for a model that was not pruned here.
    """

    folder: Path
    config: Any
    block: Block
    layers: tuple[LayerWidths, ...]
    tensors: dict[str, Any]
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        """For people."""
        if not self.manifest:
            return self.folder.resolve().name
        source = self.manifest["request"]["model"]["source"].rstrip("/").rpartition("/")[2]
        return f"{source} pruned by {self.manifest['sparsity']:.1%}"

    @property
    def head_rows(self) -> int:
        """Rows of one head."""
        return _head_rows(self.config)

    @property
    def hidden(self) -> int:
        """D, the hidden size."""
        return int(self.config.hidden_size)

    @property
    def first_layer(self) -> Any:
        """The config as its first layer sees it: with a number of heads."""
        return _first_layer(self.config)

    @property
    def rope(self) -> dict[str, Any]:
        """The rotary settings: `rope_type`, `rope_theta` and what the type needs."""
        return dict(self.config.rope_parameters)

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
    require_family(
        _family(config),
        getattr(config, "hidden_act", None),
        field="folder",
        value=str(folder),
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
        layers, manifest = _layers(config), _manifest(folder)
        block = _block(folder, config, layers, tensors)
        yield SavedFolder(folder, config, block, layers, tensors, manifest)


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


def _family(config: Any) -> str:
    return str(config.model_type).removeprefix("bonsai_")


def _first_layer(config: Any) -> Any:
    return config.per_layer_config[0] if _is_per_layer(config) else config


def _head_rows(config: Any) -> int:
    first = _first_layer(config)
    return int(first.head_dim or config.hidden_size // first.num_attention_heads)


def _block(
    folder: Path, config: Any, layers: tuple[LayerWidths, ...], tensors: dict[str, Any]
) -> Block:
    return Block(
        field="folder",
        value=str(folder),
        family=_family(config),
        uniform=len(set(layers)) == 1,
        stock=not _is_per_layer(config),
        square=layers[0].heads * _head_rows(config) == config.hidden_size,
        tied="lm_head.weight" not in tensors,
        biased=any(name.endswith(".bias") for name in tensors),
        rope_type=config.rope_parameters.get("rope_type", "default"),
        window=getattr(config, "sliding_window", None),
    )


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
