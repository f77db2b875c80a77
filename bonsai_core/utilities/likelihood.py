"""Utilities from the likelihood of the calibration text: `nll` and `perplexity`."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from bonsai_core.evaluation import perplexity_of
from bonsai_core.utilities.settings import NoSettings
from bonsai_core.utilities.tokens import TokenUtility
from bonsai_core.utilities.utility import LiveModel, require_finite


class NllUtility(TokenUtility):
    """Minus the mean negative log-likelihood, in nats per token: `evaluation.mean_nll`, negated."""

    name = "nll"

    def __init__(self, live: LiveModel, sequences: Tensor, settings: Mapping[str, Any]) -> None:
        NoSettings.model_validate(dict(settings))
        super().__init__(live, sequences)
        self.begin()

    def begin(self) -> None:
        """See `TokenUtility.begin`."""
        self._total = torch.zeros((), dtype=torch.float64, device=self.sequences.device)

    def add(self, log_probabilities: Tensor, first: int) -> None:
        """See `TokenUtility.add`."""
        labels = self.labels[first : first + len(log_probabilities)]
        self._total += functional.nll_loss(log_probabilities, labels, reduction="sum").double()

    def result(self) -> float:
        """See `TokenUtility.result`."""
        return -self._total.item() / len(self.labels)


class PerplexityUtility(NllUtility):
    """Minus the perplexity, clipped as `evaluation.perplexity_of` does."""

    name = "perplexity"

    def result(self) -> float:
        """See `TokenUtility.result`; the clipping must not hide a broken model."""
        return -perplexity_of(-require_finite(super().result(), self.name))
