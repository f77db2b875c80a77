"""Which utilities there are, by name. No torch here, and no plug-in is imported."""

from collections.abc import Collection

from bonsai_core.errors import InvalidUtilityError
from bonsai_core.plug_ins import PlugIns

GROUP = "bonsai.utilities"
"""Entry point group of plug-ins: a name, and the factory of `bonsai_core.utilities.utility`."""

BUILT_IN = ("nll", "perplexity", "kl", "choice", "function")

LOCAL_ONLY = frozenset({"function"})
"""Those that import what the request names: for whoever could run that code anyway."""

PLUG_INS = PlugIns(GROUP, BUILT_IN, "pruning.utility", InvalidUtilityError)


def require_known(name: str, *, remote: bool = False, given: Collection[str] = ()) -> None:
    """Refuse a name that stands for nothing here, or for what may not be asked for from outside.

    Args:
        name: a utility's.
        remote: whether it comes from another machine: those of `LOCAL_ONLY` are refused.
        given: further names that the caller has factories for.

    Raises:
        InvalidUtilityError: it is none of those allowed, which are named.
    """
    local = name in LOCAL_ONLY and name not in given
    if local and remote:
        raise InvalidUtilityError(
            "it would import code that the request names, and runs only where the library or the "
            "command line is used directly",
            field="pruning.utility",
            value=name,
            allowed=_allowed(given, remote=True),
            cure=f"install the function as a plug-in (entry point group {GROUP}) where API and "
            "workers run",
        )
    if local or name in given or name in BUILT_IN or name in PLUG_INS.installed():
        return
    raise InvalidUtilityError(
        "no utility has this name here",
        field="pruning.utility",
        value=name,
        allowed=_allowed(given, remote=remote),
        cure=f"use one of these, or install the package that provides it (entry point group "
        f"{GROUP}); docs/add-a-utility.md says how to write one",
    )


def _allowed(given: Collection[str], *, remote: bool) -> str:
    built_in = [name for name in BUILT_IN if not (remote and name in LOCAL_ONLY)]
    return ", ".join(dict.fromkeys([*built_in, *sorted(PLUG_INS.installed()), *given]))
