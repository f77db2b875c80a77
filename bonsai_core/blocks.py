"""Running a backbone from one of its decoder layers on, with the hidden states that enter it kept.

Layers that are not wanted pass on what they get, and the first wanted one gets the kept states in
place of its input; embeddings, masks and rotary angles come from the backbone itself. So nothing
here knows a family.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bonsai_core.evaluation import _TOKENS_PER_FORWARD
from bonsai_core.events import GoOn, regardless


class Blocks:
    """The decoder layers of a backbone, with the states of some sequences kept before one of them.

    Args:
        backbone: from tokens to final hidden states.
        layers: its decoder layers.
        sequences: [N, S] int64 token ids on the backbone's device.
        host: keep the states in the host's memory instead of the device's.
    """

    def __init__(
        self, backbone: nn.Module, layers: nn.ModuleList, sequences: Tensor, *, host: bool = False
    ) -> None:
        self._backbone = backbone
        self._layers = layers
        self._host = host
        batch = max(1, _TOKENS_PER_FORWARD[sequences.device.type] // sequences.shape[1])
        self._parts = dict(
            zip(range(0, len(sequences), batch), torch.split(sequences, batch), strict=True)
        )
        self._states: dict[int, Tensor] = {}
        self._at = 0
        self._wrapped = _output_of(backbone, layers[0], sequences[:1, :1])

    @property
    def at(self) -> int:
        """The layer before which states are kept."""
        return self._at

    @property
    def device(self) -> torch.device:
        """Where the sequences are."""
        return next(iter(self._parts.values())).device

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
            with self._running(self._at, last, self._states.pop(first, None)):
                if end is None:
                    self._backbone(input_ids=tokens, use_cache=False)
                    continue
                with self._heard(end) as got:
                    self._backbone(input_ids=tokens, use_cache=False)
            self._states[first] = got[0].cpu() if self._host else got[0]
        self._at = end or 0

    def forget(self) -> None:
        """Keep nothing: layers before the kept states have changed."""
        self._states, self._at = {}, 0

    def forward(self, tokens: Tensor, first: int) -> Tensor:
        """Final hidden states [n, S, D] of the kept part that begins with sequence `first`."""
        with self._running(self._at, len(self._layers), self._states.get(first)):
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
                    lambda _layer, inputs: (states.to(self.device), *inputs[1:])
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
