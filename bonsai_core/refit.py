"""Repair by least squares: the kept columns of an output projection take over from those that go.

With G the sum of x x' over the calibration tokens at a gate, K the kept and R the removed columns,
the new weight minimises the error of the projection's output plus a ridge towards the old one:

    W' = W_K + W_R G_RK (G_KK + s I)^-1,   s = DAMPING * mean diagonal of G_KK

This is the update of optimal brain compression (arXiv 2208.11580) for whole columns; only forward
passes are needed, and no new parameters.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bonsai_core.errors import BrokenNumericsError
from bonsai_core.events import GoOn, regardless
from bonsai_core.gates import Gate, Units
from bonsai_core.statistics import forward_all, listening

DAMPING = 0.01

_GRAM_BYTES_AT_ONCE = 2 * 2**30
"""Gates are taken in groups whose float32 Gram matrices fit into this; one pass per group."""


@torch.inference_mode()
def refitted(
    backbone: nn.Module,
    gates: Sequence[Gate],
    absent: Sequence[Units],
    sequences: Tensor,
    go_on: GoOn = regardless,
) -> dict[str, Tensor]:
    """New weights of the output projections that lose columns, by gate name; [D, kept C].

    The model is not changed. Gates that lose nothing are left out.

    Args:
        backbone: of the model before the cut.
        gates: all gates.
        absent: per gate, the units that will be cut.
        sequences: calibration tokens [N, S] on the model's device.
        go_on: called before each forward pass.

    Raises:
        BrokenNumericsError: the activations of a gate are not finite.
    """
    losing = [(gate, units) for gate, units in zip(gates, absent, strict=True) if len(units)]
    weights: dict[str, Tensor] = {}
    for group in _groups(losing):
        grams = _gram_matrices(backbone, [gate for gate, _ in group], sequences, go_on)
        for gate, units in group:
            weights[gate.name] = _solve(gate, units, grams.pop(0))
    return weights


def _groups(losing: list[tuple[Gate, Units]]) -> list[list[tuple[Gate, Units]]]:
    groups: list[list[tuple[Gate, Units]]] = []
    room = 0
    for gate, units in losing:
        size = 4 * gate.output.in_features**2
        if not groups or size > room:
            groups.append([])
            room = _GRAM_BYTES_AT_ONCE
        groups[-1].append((gate, units))
        room -= size
    return groups


def _gram_matrices(
    backbone: nn.Module, gates: Sequence[Gate], sequences: Tensor, go_on: GoOn
) -> list[Tensor]:
    grams = [
        torch.zeros(g.output.in_features, g.output.in_features, device=sequences.device)
        for g in gates
    ]

    def add(index: int, values: Tensor) -> None:
        values = values.float()
        grams[index].addmm_(values.T, values)

    with listening(gates, add):
        forward_all(backbone, sequences, go_on)
    return grams


def _solve(gate: Gate, units: Units, gram: Tensor) -> Tensor:
    device = gram.device
    gone = torch.zeros(gate.output.in_features, dtype=torch.bool, device=device)
    gone[torch.from_numpy(gate.columns_of(units)).to(device)] = True
    # Float64: the matrix is close to singular, and the solve is small beside the passes.
    gram = gram.double()
    inner = gram[~gone][:, ~gone]
    damping = DAMPING * inner.diagonal().mean()
    if not torch.isfinite(damping):
        raise BrokenNumericsError(
            f"the activations at gate {gate.name} are not finite",
            field="model.dtype",
            value=float(damping),
            cure="use bfloat16 or float32; float16 overflows in some models",
        )
    inner.diagonal().add_(damping.clamp_min(torch.finfo(torch.float64).tiny))
    factor = torch.linalg.cholesky(inner)
    weight = gate.output.weight.double()
    moved = torch.cholesky_solve(gram[~gone][:, gone] @ weight[:, gone].T, factor).T
    return (weight[:, ~gone] + moved).to(gate.output.weight.dtype).contiguous()
