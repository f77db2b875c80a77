"""Repair from layer to layer: what stays takes over, and makes up for what was lost before it.

Two streams of the calibration text run side by side, that of the model before a cut and that of the
model after it. Where a gate's output is added to the residual stream, its kept columns are refitted
so that the second stream comes back to the first:

    W' = argmin mean |W' x' - (W x + e / f)|^2 + s |W' - W_K|^2,   s = damping * mean |x'|^2 / C

with x the gate's input before the cut and W its projection; x' the input of the kept columns K
after it; e what the second stream lacks where the output is added, and f what the output is
multiplied by there. With e = 0 and x' = x_K this is the repair of `bonsai_core.refit`, which knows
nothing of the layers before. Least squares on forward passes, as in layer-wise compression with
asymmetric calibration (GPTAQ, arXiv 2504.02692, has it for quantisation).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bonsai_core.blocks import Blocks, Enough
from bonsai_core.elimination import factor, ridge, solved
from bonsai_core.events import GoOn, regardless
from bonsai_core.gates import Gate
from bonsai_core.second_moments import SecondMoments, add_products, symmetric
from bonsai_core.shelf import Shelf


@dataclass(frozen=True, slots=True)
class Streams:
    """The calibration text in the model before and after the cut.

    Attributes:
        before: runs while the gates have the projections of before the cut.
        after: runs while they have those of after it; the same sequences, kept elsewhere.
        shelf: for what is looked up within a layer.
        factor: f, what the family multiplies a gate's output by.
    """

    before: Blocks
    after: Blocks
    shelf: Shelf
    factor: float = 1.0


@torch.inference_mode()
def correct(
    gates: Sequence[Gate],
    gone: Mapping[str, Tensor],
    moments: SecondMoments,
    streams: Streams,
    damping: float,
    go_on: GoOn = regardless,
) -> None:
    """Refit the projections in place, from the first layer that lacks columns on.

    Args:
        gates: all gates of the model, in order of layers; those of single experts, which other
            tokens may reach after the cut, and those without weights stay as they are.
        gone: by gate name, which columns are zero and will be cut; [C] bool, CPU.
        moments: has the projections of before the cut.
        streams: at the beginning, or before any changed layer.
        damping: ridge towards the old weights, as a share of the mean second moment.
        go_on: called before each forward pass.
    """
    lacking = [number for number, gate in enumerate(gates) if bool(gone[gate.name].any())]
    if not lacking:
        return
    unchanged = {gate.name for gate in gates[: lacking[0]]}
    last = max(gate.layer for gate in gates)
    for layer in range(gates[lacking[0]].layer, last + 1):
        of_layer = [gate for gate in gates if gate.layer == layer]
        _bring_to(layer, streams, go_on)
        end = layer + 1 if layer < last else None
        summing = [gate for gate in of_layer if not (gate.routed or gate.weightless)]
        with _dense(of_layer, moments), _outputs(summing, streams):
            streams.before.run(end, go_on)
        for number, gate in enumerate(summing):
            if gate.name in unchanged:
                continue
            kept = ~gone[gate.name]
            new = _refitted(summing[: number + 1], kept, moments, streams, damping, go_on)
            gate.output.weight.data.copy_(new)
        if end is not None:
            streams.after.run(end, go_on)


def _bring_to(layer: int, streams: Streams, go_on: GoOn) -> None:
    """Both streams stand before the layer, and what the second one lacks there is on the shelf."""
    if streams.before.at < layer:
        streams.before.advance(layer, go_on)
        streams.after.advance(layer, go_on)
    for first in streams.before.parts:
        before, after = streams.before.states(first), streams.after.states(first)
        if before is not None and after is not None:
            streams.shelf.put(f"lack.{first}", (before - after).flatten(0, -2))


@contextmanager
def _dense(gates: Sequence[Gate], moments: SecondMoments) -> Iterator[None]:
    """While open, gates have the projections of before the cut."""
    after = [gate.output.weight.data for gate in gates]
    try:
        for gate, weight in zip(gates, after, strict=True):
            gate.output.weight.data = moments.weight(gate).to(weight.device)
        yield
    finally:
        for gate, weight in zip(gates, after, strict=True):
            gate.output.weight.data = weight


@contextmanager
def _outputs(gates: Sequence[Gate], streams: Streams) -> Iterator[None]:
    """While open, what comes out of each gate's projection goes to the shelf, part by part."""

    def keeping(gate: Gate) -> Callable[..., None]:
        return lambda _module, _inputs, output: streams.shelf.put(
            f"{gate.name}.{streams.before.running}", output.flatten(0, -2)
        )

    handles = [gate.output.register_forward_hook(keeping(gate)) for gate in gates]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Lack:
    """What the second stream lacks in the part that is running, as its layer goes on."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def begin(self, _layer: Any, _inputs: Any) -> None:
        """A part enters the layer."""
        self.part = self._streams.after.running
        # Nothing is lost before the first layer.
        nothing = torch.zeros((), device=self._streams.after.device)
        at_first = self._streams.after.at == 0
        self.value = nothing if at_first else self._streams.shelf.get(f"lack.{self.part}").float()

    def target(self, gate: Gate) -> Tensor:
        """What the gate's projection should give, [tokens, D] float32."""
        output = self._streams.shelf.get(f"{gate.name}.{self.part}").float()
        return output + self.value / self._streams.factor

    def passed(self, gate: Gate, output: Tensor) -> None:
        """A gate before the one in question has added its output."""
        before = self._streams.shelf.get(f"{gate.name}.{self.part}")
        self.value = self.value + self._streams.factor * (
            before.float() - output.flatten(0, -2).float()
        )


def _refitted(
    gates: Sequence[Gate],
    kept: Tensor,
    moments: SecondMoments,
    streams: Streams,
    damping: float,
    go_on: GoOn,
) -> Tensor:
    """The new projection of the last of these gates of a layer; [D, C], zero where not kept."""
    gate = gates[-1]
    old = moments.weight(gate)
    kept = kept.to(old.device)
    bias = gate.output.bias
    count = int(kept.sum())
    squares = torch.zeros(count, count, device=old.device)
    crossed = torch.zeros(old.shape[0], count, device=old.device)
    tokens = 0.0
    lack = _Lack(streams)

    def hear(_module: Any, inputs: tuple[Tensor, ...]) -> None:
        nonlocal tokens
        weight = streams.after.weight(lack.part)
        values = inputs[0].flatten(0, -2)[:, kept].float() * weight**0.5
        target = lack.target(gate) if bias is None else lack.target(gate) - bias.float()
        add_products(squares, values)
        crossed.addmm_(target.T, values, alpha=weight**0.5)
        tokens += weight * len(inputs[0].flatten(0, -2))
        raise Enough

    with ExitStack() as undo:
        undo.callback(streams.after.layer.register_forward_pre_hook(lack.begin).remove)
        for earlier in gates[:-1]:
            undo.callback(earlier.output.register_forward_hook(_passing(lack, earlier)).remove)
        undo.callback(gate.output.register_forward_pre_hook(hear).remove)
        streams.after.visit(go_on)
    among_kept = symmetric(squares).div_(tokens).double()
    towards_old = ridge(squares, damping)
    among_kept.diagonal().add_(towards_old)
    wanted = crossed.double() / tokens + towards_old * old[:, kept].double()
    new = torch.zeros_like(old)
    new[:, kept] = solved(factor(among_kept), wanted.T).T.to(old.dtype)
    return new


def _passing(lack: _Lack, gate: Gate) -> Callable[..., None]:
    return lambda _module, _inputs, output: lack.passed(gate, output)
