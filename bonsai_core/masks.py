"""Masks: which units a sub-model lacks. Drawing them from the prior, and trying one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from bonsai_core.gates import Gate, Units


def draw(
    candidates: Sequence[Units],
    scores: Sequence[NDArray[np.float64]],
    masks: int,
    random: np.random.Generator,
) -> NDArray[np.bool_]:
    """Draw masks over the candidates of all gates, each followed by its complement.

    In each gate half of the candidates go, drawn without replacement with probability
    proportional to (largest candidate score - score): the weak ones more often (arXiv 2402.05406,
    section 3.1). The complement lacks the other half, so every pair covers all candidates, and an
    odd candidate falls to either side by chance.

    Args:
        candidates: per gate, the units that may go.
        scores: per gate, the prior of all its units.
        masks: how many, even.
        random: the round's generator for masks.

    Returns:
        [masks, F] bool, True where a candidate is absent; F in the order of gates and units.
    """
    pairs = masks // 2
    parts = [_half(scores[gate][units], pairs, random) for gate, units in enumerate(candidates)]
    chosen = np.concatenate(parts, axis=1)
    drawn = np.empty((masks, chosen.shape[1]), dtype=np.bool_)
    drawn[0::2], drawn[1::2] = chosen, ~chosen
    return drawn


def _half(
    scores: NDArray[np.float64], pairs: int, random: np.random.Generator
) -> NDArray[np.bool_]:
    """Half of one gate's candidates in each row; [pairs, len(scores)]."""
    count = len(scores)
    chosen = np.zeros((pairs, count), dtype=np.bool_)
    if count == 0:
        return chosen
    weights = scores.max() - scores
    if not weights.sum() > 0:
        weights = np.ones(count)
    # The strongest candidate must stay drawable, or it would be in every complement.
    weights = weights / weights.sum() + 1e-3 / count
    # Gumbel's trick: the k largest of log-weight plus noise are a draw without replacement.
    keys = np.log(weights) + random.gumbel(size=(pairs, count))
    order = np.argsort(-keys, axis=1)
    sizes = count // 2 + (random.random(pairs) < 0.5) * (count % 2)
    taken = np.arange(count)[None, :] < sizes[:, None]
    np.put_along_axis(chosen, order, taken, axis=1)
    return chosen


def split(mask: NDArray[np.bool_], candidates: Sequence[Units]) -> list[Units]:
    """The absent units of each gate under one mask [F]."""
    ends = np.cumsum([len(units) for units in candidates])[:-1]
    return [units[part] for units, part in zip(candidates, np.split(mask, ends), strict=True)]


@contextmanager
def applied(gates: Sequence[Gate], absent: Sequence[Units]) -> Iterator[None]:
    """While open, the model computes without the units `absent` of each gate.

    On the way out, also by an exception, the model is as before; its weights are not written to.
    """
    masks = [_Mask(gate, units) for gate, units in zip(gates, absent, strict=True) if len(units)]
    try:
        yield
    finally:
        for mask in masks:
            mask.take_off()


class _Mask:
    """One gate without some of its units: zeros in its input, or in the columns of its projection.

    Both give the same numbers. Whichever is smaller is multiplied: with as many tokens as fill a
    device, that is the projection, by far.
    """

    def __init__(self, gate: Gate, units: Units) -> None:
        self._output = gate.output
        self._in_input = gate.weightless
        self._keep = (~gate.gone(units)).to(gate.output.weight.dtype)
        self._whole: Tensor | None = None
        self._handles = [
            gate.output.register_forward_pre_hook(self._before),
            gate.output.register_forward_hook(self._after, always_call=True),
        ]

    def take_off(self) -> None:
        """The gate has all its units again."""
        for handle in self._handles:
            handle.remove()

    def _before(self, _module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        values, weight = inputs[0], self._output.weight
        self._keep = self._keep.to(values.device)  # the weight may lie elsewhere between two passes
        if self._in_input or values.numel() <= weight.numel():
            return (values * self._keep, *inputs[1:])
        self._whole = weight.data
        weight.data = weight.data * self._keep
        return None

    def _after(self, *_: Any) -> None:
        if self._whole is not None:
            self._output.weight.data = self._whole
            self._whole = None
