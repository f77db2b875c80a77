"""What a utility is: of a live model, one number, and higher is better."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from bonsai_core.errors import BrokenNumericsError
from bonsai_core.events import GoOn, regardless
from bonsai_core.models import LiveModel as LiveModel


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
