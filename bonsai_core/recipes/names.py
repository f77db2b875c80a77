"""Which recipes there are, by name. No torch here, and no plug-in is imported."""

from bonsai_core.errors import InvalidRecipeError
from bonsai_core.plug_ins import PlugIns

GROUP = "bonsai.recipes"
"""Entry point group of plug-ins: a name, and the factory of `bonsai_core.recipes.registry`."""

BUILT_IN = ("measured_damage", "random_masks", "statistics")

PLUG_INS = PlugIns(GROUP, BUILT_IN, "pruning.recipe", InvalidRecipeError)


def require_known(name: str) -> None:
    """Refuse a name that stands for nothing here.

    Raises:
        InvalidRecipeError: it is none of those allowed, which are named.
    """
    # Looking for plug-ins reads a file of each installed package.
    if name in BUILT_IN or name in (plug_ins := PLUG_INS.installed()):
        return
    raise InvalidRecipeError(
        "no recipe has this name here",
        field="pruning.recipe",
        value=name,
        allowed=", ".join([*BUILT_IN, *sorted(plug_ins)]),
        cure=f"use one of these, or install the package that provides it (entry point group "
        f"{GROUP}); docs/add-a-recipe.md says how to write one",
    )
