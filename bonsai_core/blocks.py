"""Running a backbone from one of its decoder layers on, with the hidden states that enter it kept.

Layers that are not wanted pass on what they get, and the first wanted one gets the kept states in
place of its input; embeddings, masks and rotary angles come from the backbone itself. So nothing
here knows a family.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from bonsai_core.events import GoOn, regardless
from bonsai_core.portions import sequences_at_once
from bonsai_core.shelf import Shelf

OPENING_WEIGHT = 8.0
"""A sequence has one first token among hundreds, and all of them depend on it."""


class Enough(Exception):  # noqa: N818 - no error: a hook has heard all that it wanted
    """What a hook may raise to end the forward pass of a `visit`."""


class Blocks:
    """The decoder layers of a backbone, with the states of some sequences kept before one of them.

    Args:
        backbone: from tokens to final hidden states.
        layers: its decoder layers.
        sequences: [N, S] int64 token ids on the backbone's device.
        shelf: where the states are put aside; None: they stay on the device.
        openings: [F] int64: tokens that are run too, each as a sequence of its own. All together
            they weigh as much as `OPENING_WEIGHT` tokens of each sequence.
    """

    def __init__(
        self,
        backbone: nn.Module,
        layers: nn.ModuleList,
        sequences: Tensor,
        shelf: Shelf | None = None,
        openings: Tensor | None = None,
    ) -> None:
        self._backbone = backbone
        self._layers = layers
        self._shelf = shelf
        self._parts = _parts(sequences, 0)
        self._openings = len(sequences)
        self._weight_of_opening = 0.0
        if openings is not None and len(openings):
            self._parts |= _parts(openings[:, None], self._openings)
            self._weight_of_opening = OPENING_WEIGHT * len(sequences) / len(openings)
        self._states: dict[int, Tensor | None] = {}
        self._at = 0
        self.running = 0
        """The part that runs or has run last, for hooks that want to know."""
        self._wrapped = _output_of(backbone, layers[0], sequences[:1, :1])

    @property
    def at(self) -> int:
        """The layer before which states are kept."""
        return self._at

    @property
    def layer(self) -> nn.Module:
        """The layer itself."""
        return self._layers[self._at]

    @property
    def device(self) -> torch.device:
        """Where the sequences are."""
        return next(iter(self._parts.values())).device

    @property
    def parts(self) -> Sequence[int]:
        """The numbers of the sequences that each forward pass begins with, in order."""
        return list(self._parts)

    def sequences(self, first: int) -> int:
        """How many there are in the part that begins with sequence `first`."""
        return len(self._parts[first])

    def weight(self, first: int) -> float:
        """How much each token counts of the part that begins with sequence `first`."""
        return 1.0 if first < self._openings else self._weight_of_opening

    def advance(self, layer: int, go_on: GoOn = regardless) -> None:
        """Keep what enters `layer`, as the layers before it are now."""
        if layer < self._at:
            self.forget()
        if layer > self._at:
            self.run(layer, go_on)

    @torch.inference_mode()
    def run(self, end: int | None, go_on: GoOn = regardless) -> None:
        """Run every sequence from where its states are to layer `end`, and keep what enters that.

        Args:
            end: number of a layer after the present one; None: run to the last, and keep nothing.
            go_on: called before each forward pass.
        """
        last = len(self._layers) if end is None else end
        for first, tokens in self._parts.items():
            go_on()
            self.running = first
            with self._running(self._at, last, self.states(first)):
                if end is None:
                    self._backbone(input_ids=tokens, use_cache=False)
                    continue
                with self._heard(end) as got:
                    self._backbone(input_ids=tokens, use_cache=False)
            self._keep(first, got[0])
        if end is None:
            self.forget()
        else:
            self._at = end

    @torch.inference_mode()
    def visit(self, go_on: GoOn = regardless) -> None:
        """Run the layer that states are kept before, for the sake of its hooks; they stay."""
        for first, tokens in self._parts.items():
            go_on()
            self.running = first
            with suppress(Enough), self._running(self._at, self._at + 1, self.states(first)):
                self._backbone(input_ids=tokens, use_cache=False)

    def states(self, first: int) -> Tensor | None:
        """What enters the layer in the part that begins with sequence `first`, [n, S, D].

        None before the first layer, where nothing is kept.
        """
        if first not in self._states:
            return None
        return self._shelf.get(f"states.{first}") if self._shelf else self._states[first]

    def _keep(self, first: int, states: Tensor) -> None:
        if self._shelf:
            self._shelf.put(f"states.{first}", states)
        self._states[first] = None if self._shelf else states

    def forget(self) -> None:
        """Keep nothing: layers before the kept states have changed."""
        self._states, self._at = {}, 0

    def forward(self, tokens: Tensor, first: int) -> Tensor:
        """Final hidden states [n, S, D] of the kept part that begins with sequence `first`."""
        with self._running(self._at, len(self._layers), self.states(first)):
            final: Tensor = self._backbone(input_ids=tokens, use_cache=False).last_hidden_state
        return final

    @contextmanager
    def _running(self, start: int, end: int, states: Tensor | None) -> Iterator[None]:
        """While open, only layers start to end - 1 compute, the first of them on `states`."""
        with ExitStack() as undo:
            for number, layer in enumerate(self._layers):
                if not start <= number < end:
                    undo.enter_context(_passing(layer, self._wrapped))
            if states is not None:
                handle = self._layers[start].register_forward_pre_hook(
                    lambda _layer, inputs: (states, *inputs[1:])
                )
                undo.callback(handle.remove)
            yield

    @contextmanager
    def _heard(self, layer: int) -> Iterator[list[Tensor]]:
        """While open, what enters a layer is added to the list."""
        got: list[Tensor] = []
        handle = self._layers[layer].register_forward_pre_hook(
            lambda _layer, inputs: got.append(inputs[0])
        )
        try:
            yield got
        finally:
            handle.remove()


def _parts(sequences: Tensor, first: int) -> dict[int, Tensor]:
    """What each forward pass takes of sequences [N, S], by the number of its first one."""
    batch = sequences_at_once(sequences.shape[1], sequences.device)
    numbers = range(first, first + len(sequences), batch)
    return dict(zip(numbers, torch.split(sequences, batch), strict=True))


@contextmanager
def _passing(layer: nn.Module, wrapped: int) -> Iterator[None]:
    """While open, a decoder layer gives back the hidden states that it gets."""
    before = vars(layer).get("forward")

    def forward(hidden: Tensor, *_args: Any, **_options: Any) -> Any:
        return (hidden, *[None] * (wrapped - 1)) if wrapped else hidden

    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward
        if before is not None:
            layer.forward = before


@torch.inference_mode()
def _output_of(backbone: nn.Module, layer: nn.Module, token: Tensor) -> int:
    """The length of the tuple that a layer returns, 0 where it returns the states alone."""
    lengths: list[int] = []
    handle = layer.register_forward_hook(
        lambda _layer, _inputs, output: lengths.append(
            len(output) if isinstance(output, tuple) else 0
        )
    )
    try:
        backbone(input_ids=token, use_cache=False)
    finally:
        handle.remove()
    return lengths[0]
