"""The utility `kl`: how close the model's next-token probabilities stay to its dense parent's."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bonsai_core.utilities.settings import KlSettings
from bonsai_core.utilities.tokens import TokenUtility, next_token_chunks
from bonsai_core.utilities.utility import LiveModel

# The least mass of a bucket: what is below it, float32 cannot tell from rounding.
_LEAST = torch.finfo(torch.float32).eps


class KlUtility(TokenUtility):
    """Minus the mean over positions of KL(parent || model), in nats per token.

    The distributions compared are coarse: the parent's K likeliest tokens one by one, and one
    bucket for all others. By the data-processing inequality their divergence is never negative
    and never larger than the whole one, and it grows with K to the whole one at K = V. Each
    position's K ids and log-probabilities are kept on the model's device, 8 * K bytes.
    """

    name = "kl"

    def __init__(self, live: LiveModel, sequences: Tensor, settings: Mapping[str, Any]) -> None:
        super().__init__(live, sequences)
        vocabulary = live.head.weight.shape[0]
        top = min(KlSettings.model_validate(dict(settings)).top, vocabulary)
        self._has_rest = top < vocabulary
        self._remember_parent(top)
        self.begin()

    def begin(self) -> None:
        """See `TokenUtility.begin`."""
        self._total = torch.zeros((), dtype=torch.float64, device=self.sequences.device)

    def add(self, log_probabilities: Tensor, first: int) -> None:
        """See `TokenUtility.add`."""
        rows = slice(first, first + len(log_probabilities))
        parent = self._parent[rows]
        model = log_probabilities.gather(1, self._tokens[rows].long())
        self._total += (parent.exp() * (parent - model)).sum(dim=1).double().sum()
        if self._has_rest:
            rest = self._parent_rest[rows]
            self._total += (rest.exp() * (rest - _log_rest(model))).sum()

    def result(self) -> float:
        """See `TokenUtility.result`."""
        return -self._total.item() / len(self.labels)

    @torch.inference_mode()
    def _remember_parent(self, top: int) -> None:
        positions, device = len(self.labels), self.sequences.device
        self._tokens = torch.empty((positions, top), dtype=torch.int32, device=device)
        self._parent = torch.empty((positions, top), dtype=torch.float32, device=device)
        self._parent_rest = torch.empty(positions, dtype=torch.float64, device=device)
        for first, log_probabilities in next_token_chunks(self.live, self.sequences):
            rows = slice(first, first + len(log_probabilities))
            found = log_probabilities.topk(top, dim=1)
            self._tokens[rows], self._parent[rows] = found.indices, found.values
            self._parent_rest[rows] = _log_rest(found.values)


def _log_rest(log_probabilities: Tensor) -> Tensor:
    """The logarithm of the mass that [P, K] log-probabilities leave to all others; [P] float64.

    Rounding may leave less than nothing, hence the least mass; both sides of a comparison get it.
    """
    return torch.log((1 - log_probabilities.double().exp().sum(dim=1)).clamp_min(_LEAST))
