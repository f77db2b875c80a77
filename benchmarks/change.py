"""A pruned model without cutting: what a method changes, put on a live model and taken off."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor, nn

from bonsai_core.gates import Gate, Units
from bonsai_core.masks import applied


@dataclass(frozen=True, slots=True)
class Change:
    """What a method does to a model.

    Attributes:
        absent: per gate, the units that go.
        weights: by gate name, new weights [D, C] of output projections, zero where columns go.
        biases: by gate name, what is added to the output projection's result, [D].
    """

    absent: Sequence[Units]
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    biases: Mapping[str, Tensor] = field(default_factory=dict)

    def removed(self, gates: Sequence[Gate]) -> int:
        """Parameters that go, counted from the units."""
        return sum(len(units) * gate.price for gate, units in zip(gates, self.absent, strict=True))

    def added(self, gates: Sequence[Gate]) -> int:
        """Parameters that come: biases where the model had none."""
        return sum(
            self.biases[gate.name].numel()
            for gate in gates
            if gate.name in self.biases and gate.output.bias is None
        )


@contextmanager
def changed(gates: Sequence[Gate], change: Change) -> Iterator[None]:
    """While open, the model computes as if cut; then it is as before, to the last bit."""
    before = [(gate.output, gate.output.weight, gate.output.bias) for gate in gates]
    try:
        for gate in gates:
            _put(gate.output, change.weights.get(gate.name), change.biases.get(gate.name))
        with applied(gates, change.absent):
            yield
    finally:
        for linear, weight, bias in before:
            linear.weight, linear.bias = weight, bias


def _put(linear: nn.Linear, weight: Tensor | None, bias: Tensor | None) -> None:
    if weight is not None:
        linear.weight = _parameter(weight, linear.weight)
    if bias is not None:
        total = bias if linear.bias is None else linear.bias + bias.to(linear.bias)
        linear.bias = _parameter(total, linear.weight)


def _parameter(values: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach().to(like.device, like.dtype), requires_grad=False)
