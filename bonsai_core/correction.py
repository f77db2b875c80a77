"""Repair from layer to layer: what stays makes up for what was lost before it.

Two streams of the calibration text run side by side, that of the model before a cut and that of the
model after it. Where a gate's output is added to the residual stream, its repaired projection
(`bonsai_core.refit`) is corrected so that the second stream comes back to the first:

    D = argmin mean |D x' - m|^2 + s |D|^2,   W'' = W' + a D,   s = ridge * mean |x'|^2 / C

with W' the repaired projection, x' what enters its kept columns after the cut, and m what the
second stream lacks once the gate has added its output. Least squares on forward passes, as in
layer-wise compression with asymmetric calibration (GPTAQ, arXiv 2504.02692, for quantisation).

Most of m says nothing of x'. A correction that fits it all fits the calibration text alone, and
with little text does more harm than good, so two halves of the text choose s and a. With D_i from
one half, G_j = mean of x' x'^T and R_j = mean of m x'^T over the other,

    agreed = sum tr D_i R_j^T,   noisy = sum tr D_i G_j D_i^T,   a = 2 agreed / (agreed + noisy)

since what the halves agree on is there for all of the text, and of the noise half; s is where
a * agreed is the most, which is what the correction should remove of the error.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bonsai_core.blocks import Blocks, Enough
from bonsai_core.elimination import damped, factor, solved
from bonsai_core.events import GoOn, regardless
from bonsai_core.gates import Gate
from bonsai_core.second_moments import SecondMoments, add_products, symmetric
from bonsai_core.shelf import Shelf

RIDGES = (1.0, 0.1, 0.01, 0.001)
"""What is tried for s, as shares of the mean second moment; the strongest first."""

_ROWS = 1024
"""Rows of a projection that are solved for at a time."""


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
    go_on: GoOn = regardless,
) -> None:
    """Correct the projections in place, from the first layer that lacks columns on.

    Args:
        gates: all gates of the model, in order of layers; those of single experts, which other
            tokens may reach after the cut, and those without weights stay as they are.
        gone: by gate name, which columns are zero and will be cut; [C] bool, CPU. The others are
            repaired, if they shall be.
        moments: has the projections of before the cut.
        streams: at the beginning, or before any changed layer.
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
            halves = _missing(summing[: number + 1], kept, streams, go_on)
            weight = gate.output.weight
            kept = kept.to(weight.device)
            corrected = weight[:, kept].float() + _agreed(halves).to(weight.device)
            weight.data[:, kept] = corrected.to(weight.dtype)
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


class _Half:
    """Sums over one half of the text; of C kept columns and D rows.

    Args:
        rows: D.
        columns: C.
        device: where they are.

    Attributes:
        squares: of x' x'^T; [C, C] float32.
        crossed: of m x'^T; [D, C] float32.
    """

    def __init__(self, rows: int, columns: int, device: torch.device) -> None:
        self.squares = torch.zeros(columns, columns, device=device)
        self.crossed = torch.zeros(rows, columns, device=device)

    def add(self, inputs: Tensor, missing: Tensor, weight: float) -> None:
        """Tokens of the same weight; [tokens, C] and [tokens, D]."""
        values = inputs * weight**0.5
        add_products(self.squares, values)
        self.crossed.addmm_(missing.T, values, alpha=weight**0.5)


def _missing(
    gates: Sequence[Gate], kept: Tensor, streams: Streams, go_on: GoOn
) -> tuple[_Half, _Half]:
    """What the stream lacks once the last of these gates of a layer has added its output."""
    gate = gates[-1]
    kept = kept.to(streams.after.device)
    rows = gate.output.out_features
    halves = [_Half(rows, int(kept.sum()), streams.after.device) for _ in range(2)]
    lack = _Lack(streams)

    def hear(_module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = streams.after.weight(lack.part)
        missing = lack.target(gate) - output.flatten(0, -2).float()
        # By sequence: how many of them run at once says nothing.
        length = len(missing) // streams.after.sequences(lack.part)
        of_sequence = torch.arange(len(missing), device=missing.device) // length + lack.part
        for number, half in enumerate(halves):
            mine = of_sequence % 2 == number
            values = inputs[0].flatten(0, -2)[mine][:, kept].float()
            half.add(values, missing[mine], weight)
        raise Enough

    with ExitStack() as undo:
        undo.callback(streams.after.layer.register_forward_pre_hook(lack.begin).remove)
        for earlier in gates[:-1]:
            undo.callback(earlier.output.register_forward_hook(_passing(lack, earlier)).remove)
        undo.callback(gate.output.register_forward_hook(hear).remove)
        streams.after.visit(go_on)
    for half in halves:
        half.squares = symmetric(half.squares)
    return halves[0], halves[1]


def _agreed(halves: tuple[_Half, _Half]) -> Tensor:
    """The correction a D; [D, C] float32."""
    most, ridge, share = 0.0, RIDGES[0], 0.0
    for tried in RIDGES:
        agreed, noisy = (sum(parts) for parts in zip(*_across(halves, tried), strict=True))
        if agreed <= 0:
            continue
        possible = min(1.0, 2 * agreed / (agreed + noisy))
        if possible * agreed > most:
            most, ridge, share = possible * agreed, tried, possible
    one, other = halves
    if not share:
        return torch.zeros_like(one.crossed)
    lower = factor(damped(one.squares.add_(other.squares), ridge))
    rows = torch.split(one.crossed.add_(other.crossed), _ROWS)
    return share * torch.cat([solved(lower, part.double().T).T.float() for part in rows])


def _across(halves: tuple[_Half, _Half], ridge: float) -> Iterator[tuple[float, float]]:
    """From each half: what the other agrees to, and what that makes of it."""
    for one, other in (halves, halves[::-1]):
        lower = factor(damped(one.squares, ridge))
        agreed = noisy = 0.0
        rows = (torch.split(half.crossed, _ROWS) for half in (one, other))
        for mine, its in zip(*rows, strict=True):
            found = solved(lower, mine.double().T).T.float()
            agreed += float((found * its).sum(dtype=torch.float64))
            noisy += float((found @ other.squares * found).sum(dtype=torch.float64))
        yield agreed, noisy


def _passing(lack: _Lack, gate: Gate) -> Callable[..., None]:
    return lambda _module, _inputs, output: lack.passed(gate, output)
