"""Second moments of what flows into the gates: the one statistic that elimination and repair need.

G = mean of x x' over the calibration tokens at a gate by their weights, [C, C]. The matrices of a
wide model are larger than the model, so they lie in files, one for each gate, with the gate's dense
projection beside it: a repair starts from that, whatever has been tried since.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from bonsai_core.blocks import Blocks
from bonsai_core.errors import BrokenNumericsError
from bonsai_core.events import GoOn, regardless
from bonsai_core.gates import Gate
from bonsai_core.shelf import Shelf
from bonsai_core.statistics import listening

BYTES_AT_ONCE = 2**27
"""Matrices in memory at a time: so many layers are heard at once, before the next are run."""

_BLOCKS = 4
"""Columns are taken in this many blocks; those below the diagonal are not computed."""


class SecondMoments:
    """G and the dense projection of each gate of one model.

    Args:
        folder: of the files.
        device: where they are wanted: the one that computes, wherever the model's weights lie.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self._shelf = Shelf(folder, device)

    def of(self, gate: Gate) -> Tensor:
        """G, [C, C] float32, symmetric."""
        return self._shelf.get(f"{gate.name}.moments")

    def weight(self, gate: Gate) -> Tensor:
        """The projection's weight when the moments were taken, [D, C]."""
        return self._shelf.get(f"{gate.name}.weight")

    def keep(self, gate: Gate, moments: Tensor) -> None:
        """Write what a gate's repairs need.

        Raises:
            BrokenNumericsError: the moments are not finite.
        """
        mean = moments.diagonal().mean()
        if not torch.isfinite(mean):
            raise BrokenNumericsError(
                f"the activations at gate {gate.name} are not finite",
                field="model.dtype",
                value=float(mean),
                cure="use bfloat16 or float32; float16 overflows in some models",
            )
        self._shelf.put(f"{gate.name}.moments", moments)
        self._shelf.put(f"{gate.name}.weight", gate.output.weight)


@torch.inference_mode()
def gather(
    blocks: Blocks, gates: Sequence[Gate], folder: Path, go_on: GoOn = regardless
) -> SecondMoments:
    """Second moments of every gate over the sequences of `blocks`, from one forward pass of each.

    Args:
        blocks: the model's layers; left at the last ones that were run.
        gates: all gates, in order of layers.
        folder: where the matrices go; the sum of 4 * C^2 bytes over the gates.
        go_on: called before each forward pass.

    Raises:
        BrokenNumericsError: the activations of a gate are not finite.
    """
    found = SecondMoments(folder, blocks.device)
    groups = _groups(gates)
    for number, group in enumerate(groups):
        end = groups[number + 1][0].layer if number + 1 < len(groups) else None
        for gate, moments in zip(group, _heard(blocks, group, end, go_on), strict=True):
            found.keep(gate, moments)
    return found


def _heard(blocks: Blocks, gates: Sequence[Gate], end: int | None, go_on: GoOn) -> list[Tensor]:
    """The moments of neighbouring gates; the blocks are run from where they are to layer `end`."""
    sizes = [gate.output.in_features for gate in gates]
    sums = [torch.zeros(size, size, device=blocks.device) for size in sizes]
    tokens = 0.0

    def add(index: int, values: Tensor) -> None:
        nonlocal tokens
        weight = blocks.weight(blocks.running)
        tokens += weight * len(values) if index == 0 else 0
        add_products(sums[index], values.float() * weight**0.5)

    with listening(gates, add):
        blocks.run(end, go_on)
    return [symmetric(total).div_(tokens) for total in sums]


def _groups(gates: Sequence[Gate]) -> list[list[Gate]]:
    """Gates of whole layers whose matrices fit into the memory for them, at least one layer."""
    groups: list[list[Gate]] = [[]]
    for layer in dict.fromkeys(gate.layer for gate in gates):
        of_layer = [gate for gate in gates if gate.layer == layer]
        taken = sum(4 * gate.output.in_features**2 for gate in groups[-1] + of_layer)
        if groups[-1] and taken > BYTES_AT_ONCE:
            groups.append([])
        groups[-1] += of_layer
    return groups


def add_products(total: Tensor, values: Tensor) -> None:
    """Add x x' of values [tokens, C] to the blocks of `total` on and above the diagonal."""
    columns = values.shape[1]
    step = -(-columns // _BLOCKS)
    for start in range(0, columns, step):
        rows = values[:, start : start + step]
        total[start : start + step, start:].addmm_(rows.T, values[:, start:])


def symmetric(total: Tensor) -> Tensor:
    """The whole matrix in the memory of its part on and above the diagonal."""
    above = total.triu(1).T
    return total.triu_().add_(above)
