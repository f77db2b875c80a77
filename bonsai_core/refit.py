"""Repair by least squares: the kept columns of an output projection take over from those that go.

With G the second moments of the gate's input, K the kept and R the removed columns, the new weight
minimises the error of the projection's output plus a ridge towards the old one:

    W' = W_K + W_R G_RK (G_KK + s I)^-1,   s = damping * mean diagonal of G

This is the update of optimal brain compression (arXiv 2208.11580) for whole columns; only forward
passes are needed, and no new parameters. From the same G and W, repairing twice is repairing once.
"""

import torch
from torch import Tensor

from bonsai_core.elimination import factor, ridge, solved


@torch.inference_mode()
def repaired(weight: Tensor, moments: Tensor, gone: Tensor, damping: float) -> Tensor:
    """The projection's weight without some columns, the others having taken over.

    Args:
        weight: [D, C], as it was when the moments were taken.
        moments: second moments of its input, [C, C].
        gone: [C] bool, True where a column goes; not everywhere.
        damping: ridge towards the old weight, as a share of the mean diagonal of the moments.

    Returns:
        [D, C] in the weight's dtype, zero in the columns that go.
    """
    # Float64: the matrix is close to singular, and the solve is small beside the passes.
    rows = moments[~gone]
    among_kept, across = rows[:, ~gone].double(), rows[:, gone].double()
    del rows
    among_kept.diagonal().add_(ridge(moments, damping))
    moved = solved(factor(among_kept), across @ weight[:, gone].double().T).T
    new = torch.zeros_like(weight)
    new[:, ~gone] = (weight[:, ~gone].double() + moved).to(weight.dtype)
    return new
