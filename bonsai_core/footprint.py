"""What a prune takes of a device's memory, told from the model's config before anything is loaded.

An estimate: for choosing a device, not a bound. A device that runs out all the same is given fewer
sequences at once (`bonsai_core.pruner`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bonsai_core.families import embedding_parameters, non_embedding_parameters, widths_of

WEIGHTS_SHARE = 0.75
"""Of a device's free memory, weights take no more; the rest is for activations, second moments and
repairs."""

_ITEM_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}

_SQUARES_BYTES = 32
"""Per entry of a gate's second moments: themselves, and what an inverse in float64 takes."""

_STATES = 24
"""States of a layer that one sequence has at once, as long as the hidden size or the MLP."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that have to be free on a device.

    Attributes:
        whole: so that all weights stay there.
        streamed: so that the largest layers can come one by one (`bonsai_core.streaming`).
    """

    whole: int
    streamed: int


def footprint(config: Mapping[str, Any], dtype: str, sequence_length: int) -> Footprint:
    """What a prune of a dense model takes.

    Args:
        config: of the model.
        dtype: of the weights in memory, such as bfloat16; auto is what the config says.
        sequence_length: tokens of a calibration sequence.

    Raises:
        InvalidModelError: a size that the config must say is missing or not positive.
        UnsupportedModelError: the architecture is not one of `bonsai_core.families`.
    """
    widths = widths_of(config)
    layers = item_bytes(config, dtype) * non_embedding_parameters(config)
    beside = embedding_bytes(config, dtype)
    widest = max(widths.channels, widths.shared_channels, widths.dense_channels, widths.hidden)
    working = _SQUARES_BYTES * widest**2 + 4 * _STATES * widest * sequence_length
    # One layer runs while the next one comes.
    visitors = layers * min(2, widths.layers) // widths.layers
    return Footprint(_with(working, beside + layers), _with(working, beside + visitors))


def _with(working: int, weights: int) -> int:
    return max(int(weights / WEIGHTS_SHARE), weights + working)


def embedding_bytes(config: Mapping[str, Any], dtype: str) -> int:
    """Bytes of the input embedding and of the output head; `dtype` as of `footprint`."""
    return item_bytes(config, dtype) * embedding_parameters(config)


def item_bytes(config: Mapping[str, Any], dtype: str) -> int:
    """Bytes of one parameter; `dtype` as of `footprint`."""
    said = config.get("dtype") or config.get("torch_dtype") if dtype == "auto" else dtype
    return _ITEM_BYTES.get(str(said), 4)
