"""From the name of a utility to its factory: built in, given by the caller, or a plug-in's."""

from collections.abc import Mapping

from bonsai_core.errors import InvalidUtilityError
from bonsai_core.utilities.choice import ChoiceUtility
from bonsai_core.utilities.divergence import KlUtility
from bonsai_core.utilities.function import named_function
from bonsai_core.utilities.likelihood import NllUtility, PerplexityUtility
from bonsai_core.utilities.names import GROUP, PLUG_INS, require_known
from bonsai_core.utilities.utility import Factory

FACTORIES: Mapping[str, Factory] = {
    "nll": NllUtility,
    "perplexity": PerplexityUtility,
    "kl": KlUtility,
    "choice": ChoiceUtility,
    "function": named_function,
}


def factory_named(name: str, given: Mapping[str, Factory] | None = None) -> Factory:
    """The factory of a utility; a given one goes before a built-in one, and that before a plug-in.

    Raises:
        InvalidUtilityError: the name is unknown, or the plug-in cannot be imported.
    """
    factories = {**FACTORIES, **(given or {})}
    require_known(name, given=factories)
    return factories[name] if name in factories else _plug_in(name)


def _plug_in(name: str) -> Factory:
    factory: Factory = PLUG_INS.load(name)
    if callable(factory):
        return factory
    raise InvalidUtilityError(
        f"its plug-in is {type(factory).__name__}, not a factory",
        field="pruning.utility",
        value=name,
        allowed=f"a class or function in the entry point group {GROUP} that takes "
        "(live, sequences, settings) and gives a utility",
    )
