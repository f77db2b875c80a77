"""What a prune takes of a disk, told from the model's config before anything is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bonsai_core.budget import heard_tokens
from bonsai_core.config import PruneRequest
from bonsai_core.families import family_of, gates_like, non_embedding_parameters, widths_of
from bonsai_core.footprint import embedding_bytes, item_bytes
from bonsai_core.formats.names import Format
from bonsai_core.target import Size

_PRIOR_BYTES = 8
"""Of a unit, in each round."""

_STATES = 4
"""Of all that is listened to: before a layer for the moments; in the repair of both models, with
what the smaller one lacks. What each gate gives comes beside."""


_BYTES = {
    Format.GGUF_F32: 4.0,
    Format.GGUF_F16: 2.0,
    Format.GGUF_BF16: 2.0,
    Format.GGUF_Q8_0: 34 / 32,
}
"""Of a weight; other formats keep the type of the result."""


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes of files.

    Attributes:
        result: the smaller model's weights, in each of the formats.
        checkpoints: what a run keeps of its rounds, to go on from.
        scratch: what it looks up while it runs, at most; gone at its end.
    """

    result: int
    checkpoints: int
    scratch: int


def disk(request: PruneRequest, config: Mapping[str, Any], rounds: int) -> Disk:
    """What a prune takes, of so many rounds for each of its targets.

    Raises:
        InvalidModelError: a size that the config must say is missing or not positive.
        UnsupportedModelError: the architecture is not one of `bonsai_core.families`.
    """
    parts = [_disk(one, config, rounds) for one in request.each()]
    return Disk(
        result=sum(part.result for part in parts),
        checkpoints=sum(part.checkpoints for part in parts),
        scratch=max(part.scratch for part in parts),
    )


def _disk(request: PruneRequest, config: Mapping[str, Any], rounds: int) -> Disk:
    family, widths = family_of(config), widths_of(config)
    item, pruning = item_bytes(config, request.model.dtype), request.pruning
    sparsity = request.target.share_to_remove(Size.of(config))
    squares = projections = units = outputs = 0
    for pattern in family.gates(pruning.experts):
        gates, of_gate = gates_like(pattern, widths), getattr(widths, pattern.units)
        units += gates * of_gate
        if not pattern.weightless:
            columns = of_gate * getattr(widths, pattern.columns)
            squares += 4 * gates * columns**2
            projections += item * gates * columns * widths.hidden
            outputs += 0 if pattern.copies else gates
    kept = _kept_projections(request, sparsity, rounds) if pruning.refit else 0.0
    states = (_STATES + outputs) * item * heard_tokens(request) * widths.hidden
    embedding = embedding_bytes(config, request.model.dtype)
    layers = item * non_embedding_parameters(config)
    copies = 1 + sum(_BYTES.get(kind, item) / item for kind in request.formats)
    return Disk(
        result=int(copies * (embedding + (1 - sparsity) * layers)),
        checkpoints=int(kept * projections + _PRIOR_BYTES * units * rounds),
        scratch=squares + projections + states,
    )


def _kept_projections(request: PruneRequest, sparsity: float, rounds: int) -> float:
    """Repaired projections that are kept after each cut, relative to those of the dense model."""
    each = request.pruning.sparsity_per_round
    if request.pruning.recipe != "random_masks":
        return 1 - sparsity
    return sum(1 - min(sparsity, number * each) for number in range(1, rounds + 1))
