"""The utility `function`: whatever a function of yours says that the model is worth."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from bonsai_core.errors import InvalidUtilityError
from bonsai_core.events import GoOn, regardless
from bonsai_core.utilities.settings import FunctionSettings
from bonsai_core.utilities.utility import Factory, LiveModel, Utility, require_finite

Function = Callable[[LiveModel, Tensor], float]
"""Of a live model and the calibration sequences [N, S]: a number, and higher is better. It leaves
the model as it was; what it raises ends the run."""


class FunctionUtility:
    """Calls a function on the model as it is now, without gradients."""

    name = "function"

    def __init__(self, function: Function, live: LiveModel, sequences: Tensor) -> None:
        self._function = function
        self._live = live
        self._sequences = sequences

    @torch.inference_mode()
    def measure(self, go_on: GoOn = regardless) -> float:
        """See `Utility.measure`; `go_on` is called once, for the function cannot be interrupted.

        Raises:
            InvalidUtilityError: the function gives no number.
            BrokenNumericsError: the number is not finite.
        """
        go_on()
        return require_finite(_number(self._function(self._live, self._sequences)), self.name)


def from_function(function: Function) -> Factory:
    """A factory that gives a utility of this function, for the library's own callers."""

    def factory(live: LiveModel, sequences: Tensor, settings: Mapping[str, Any]) -> Utility:
        if settings:
            raise InvalidUtilityError(
                "a function has no settings", field="pruning.utility", value=dict(settings)
            )
        return FunctionUtility(function, live, sequences)

    return factory


def named_function(live: LiveModel, sequences: Tensor, settings: Mapping[str, Any]) -> Utility:
    """The factory of `function`: imports what the settings name, so it is local only.

    Raises:
        InvalidUtilityError: there is no such module or function, or it cannot be imported.
    """
    path = FunctionSettings.model_validate(dict(settings)).path
    return FunctionUtility(_imported(path), live, sequences)


def _imported(path: str) -> Function:
    module_name, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), name)
    except Exception as error:  # a module may raise anything
        raise InvalidUtilityError(
            f"the function cannot be imported: {type(error).__name__}: {error}",
            field="pruning.utility",
            value=path,
            allowed="package.module:function",
            cure="install the package, or name its folder in PYTHONPATH",
        ) from error
    if not callable(function):
        raise InvalidUtilityError(
            f"it is {type(function).__name__}, not a function", field="pruning.utility", value=path
        )
    return function


def _number(value: Any) -> float:
    try:
        if isinstance(value, str):
            raise TypeError
        return float(value)  # a tensor of one element too
    except (TypeError, ValueError) as error:
        raise InvalidUtilityError(
            "the function must return a number",
            field="pruning.utility",
            value=value,
            allowed="a float, or a tensor of one element",
        ) from error
