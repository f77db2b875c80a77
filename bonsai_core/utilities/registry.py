"""From the name of a utility to its factory: built in, given by the caller, or a plug-in's."""

from collections.abc import Mapping

from bonsai_core.errors import InvalidUtilityError
from bonsai_core.utilities.choice import ChoiceUtility
from bonsai_core.utilities.divergence import KlUtility
from bonsai_core.utilities.function import named_function
from bonsai_core.utilities.likelihood import NllUtility, PerplexityUtility
from bonsai_core.utilities.names import GROUP, installed, require_known
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
    point = installed()[name]
    try:
        factory = point.load()
    except Exception as error:  # a plug-in may raise anything while it is imported
        raise InvalidUtilityError(
            f"its plug-in {point.value} cannot be imported: {type(error).__name__}: {error}",
            field="pruning.utility",
            value=name,
            cure=f"repair or uninstall {point.dist.name if point.dist else 'its package'}",
        ) from error
    if not callable(factory):
        raise InvalidUtilityError(
            f"its plug-in {point.value} is {type(factory).__name__}, not a factory",
            field="pruning.utility",
            value=name,
            allowed=f"a class or function in the entry point group {GROUP} that takes "
            "(live, sequences, settings) and gives a utility",
        )
    return factory
