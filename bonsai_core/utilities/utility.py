"""What a utility is: of a live model, one number, and higher is better."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from bonsai_core.errors import BrokenNumericsError
from bonsai_core.events import GoOn, regardless
from bonsai_core.families import Family
from bonsai_core.models import logits_of


@dataclass(frozen=True, slots=True)
class LiveModel:
    """What a utility may run. The model changes while it is pruned; this stays the same object."""

    model: Any
    family: Family
    tokenizer: Any
    device: torch.device

    @property
    def backbone(self) -> Any:
        """From tokens to the hidden states before the head."""
        return self.model.get_submodule(self.family.backbone)

    @property
    def head(self) -> Any:
        """From hidden states to logits."""
        return self.model.get_submodule(self.family.head)

    def log_probabilities(self, states: Tensor) -> Tensor:
        """Of each token as the next one, from hidden states [P, D]; [P, V] float32."""
        return torch.log_softmax(logits_of(self.model, self.family)(states), dim=1)


class Utility(Protocol):
    """What a model is worth. One that reads a file offers its digest as `digest`, a str: a run is
    then not continued with another file."""

    name: str

    def measure(self, go_on: GoOn = regardless) -> float:
        """Of the model as it is now; higher is better; nats per token where it is a likelihood.

        The model is left as it was. `go_on` is called before each forward pass.

        Raises:
            BrokenNumericsError: the number is not finite.
        """
        ...


Factory = Callable[[LiveModel, Tensor, Mapping[str, Any]], Utility]
"""Makes a utility while the model is still dense, from the calibration sequences [N, S] int64 on
the model's device and the `settings` of the request."""


def require_finite(value: float, name: str) -> float:
    """The value, if it is a number at all.

    Raises:
        BrokenNumericsError: it is infinite, or not a number.
    """
    if not math.isfinite(value):
        raise BrokenNumericsError(
            f"the utility {name!r} of the model is not finite",
            field="model.dtype",
            value=value,
            cure="use bfloat16 or float32; float16 overflows in some models",
        )
    return value
