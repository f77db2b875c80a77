"""How sure a smaller model is of its next token: one factor for all logits, in its last norm.

A repair brings the final states of a pruned model close to those of the dense one, and not the
logits' scale: a model that knows less should say so, and one pruned by half says it too rarely. A
temperature on the logits is the usual cure (arXiv 1706.04599, section 4.2). Logits are linear in
what the last norm gives, so its weight takes the factor, and the result has no new part.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from bonsai_core.families import Family
from bonsai_core.recipes.probes import CONFIDENCES

_PREFIX = "norm."


class FinalNorm:
    """The norm between a backbone's last layer and its head, as it is now.

    Args:
        norm: its module.
        adds: what it adds to its weight before that multiplies.
    """

    def __init__(self, norm: nn.Module, adds: float) -> None:
        self._norm = norm
        self._adds = adds
        self._before = {name: value.detach().clone() for name, value in norm.named_parameters()}

    @staticmethod
    def of(model: nn.Module, family: Family) -> "FinalNorm | None":
        """That of a live model; None where it has none, or one without a weight."""
        norm = getattr(model.get_submodule(family.backbone), family.norm)
        if norm is None or not any(True for _ in norm.parameters()):
            return None
        return FinalNorm(norm, family.norm_adds)

    @torch.inference_mode()
    def scale(self, factor: float) -> None:
        """Make what the norm gives so many times what it gave at first."""
        for name, value in self._norm.named_parameters():
            adds = self._adds if name == "weight" else 0.0
            before = self._before[name].float()
            value.data.copy_((before + adds) * factor - adds)

    def weights(self) -> dict[str, Tensor]:
        """Its parameters, for a ledger, beside those of gates."""
        return {
            f"{_PREFIX}{name}": value.detach().clone()
            for name, value in self._norm.named_parameters()
        }

    def take(self, weights: Mapping[str, Tensor]) -> None:
        """Take over what a ledger has of it, if it has."""
        for name, value in self._norm.named_parameters():
            if f"{_PREFIX}{name}" in weights:
                value.data.copy_(weights[f"{_PREFIX}{name}"])


def choose(norm: FinalNorm, measure: Callable[[], float]) -> float:
    """The factor under which the model is worth the most; the norm has it afterwards.

    Args:
        norm: of the model that is measured.
        measure: what the model is worth as it is.
    """
    found: dict[float, float] = {}
    for factor in CONFIDENCES:
        norm.scale(factor)
        found[factor] = measure()
    # Of several as good, the one that changes the least.
    best = max(found, key=lambda factor: (found[factor], -abs(factor - 1)))
    norm.scale(best)
    return best
