"""Utilities of the next-token probabilities: any number of them share one forward pass."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from bonsai_core.events import GoOn, regardless
from bonsai_core.portions import positions_at_once, sequences_at_once
from bonsai_core.utilities.utility import LiveModel, require_finite


class Forward(Protocol):
    """How tokens become the hidden states before the head: by the backbone, or from a cache."""

    def __call__(self, tokens: Tensor, first: int) -> Tensor:
        """The final hidden states [n, S, D] of `tokens` [n, S], sequences `first` to first + n."""
        ...


class TokenUtility(ABC):
    """A utility that is a sum over positions. Its three steps see every predicted position once.

    Positions are numbered row by row: those of sequence n are n * (S - 1) to (n + 1) * (S - 1) - 1.
    The last position of a sequence, which predicts a token that nobody knows, is left out.

    Attributes:
        name: see `Utility`.
        live: the model.
        sequences: [N, S] int64 token ids on the model's device; S >= 2.
        labels: [N * (S - 1)] int64: the token that follows each position.
    """

    name: str

    def __init__(self, live: LiveModel, sequences: Tensor) -> None:
        self.live = live
        self.sequences = sequences
        self.labels = sequences[:, 1:].flatten()

    @abstractmethod
    def begin(self) -> None:
        """Forget what was added."""

    @abstractmethod
    def add(self, log_probabilities: Tensor, first: int) -> None:
        """Take in some positions.

        Args:
            log_probabilities: [P, V] float32, of each token as the next one; shared with other
                utilities, so it is not to be written to, nor kept.
            first: number of the first of these P positions, which follow each other.
        """

    @abstractmethod
    def result(self) -> float:
        """The utility, all positions having been added."""

    def measure(self, go_on: GoOn = regardless) -> float:
        """See `Utility.measure`."""
        return measure_tokens(self.live, [self], self.sequences, go_on=go_on)[0]


@torch.inference_mode()
def measure_tokens(
    live: LiveModel,
    utilities: Sequence[TokenUtility],
    sequences: Tensor,
    *,
    forward: Forward | None = None,
    go_on: GoOn = regardless,
) -> list[float]:
    """Several utilities of the same sequences, from one pass through backbone and head.

    Args:
        live: the model.
        utilities: made for these sequences.
        sequences: [N, S] int64 token ids on the model's device.
        forward: what gives the hidden states; None: the model's backbone.
        go_on: called before each call of `forward`.

    Raises:
        BrokenNumericsError: one of the results is not finite.
    """
    for utility in utilities:
        utility.begin()
    for first, log_probabilities in next_token_chunks(live, sequences, forward, go_on):
        for utility in utilities:
            utility.add(log_probabilities, first)
    return [require_finite(utility.result(), utility.name) for utility in utilities]


def next_token_chunks(
    live: LiveModel, sequences: Tensor, forward: Forward | None = None, go_on: GoOn = regardless
) -> Iterator[tuple[int, Tensor]]:
    """Log-probabilities [P, V] float32 with the number of their first position, in order.

    The caller holds torch's inference mode. Portions are those of `evaluation.mean_nll`, so that
    sums over them round alike.
    """
    forward = forward or _through_backbone(live)
    batch = sequences_at_once(sequences.shape[1], sequences.device)
    chunk = positions_at_once(sequences.device)
    position = 0
    for first in range(0, len(sequences), batch):
        go_on()
        hidden = forward(sequences[first : first + batch], first)[:, :-1].flatten(0, 1)
        for states in torch.split(hidden, chunk):
            yield position, live.log_probabilities(states)
            position += len(states)


def _through_backbone(live: LiveModel) -> Forward:
    backbone = live.backbone

    def forward(tokens: Tensor, first: int) -> Tensor:  # noqa: ARG001 - a cache would need it
        return backbone(input_ids=tokens, use_cache=False).last_hidden_state

    return forward
