"""Recipes by name: those of the project, and those of packages that offer the entry point."""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

from bonsai_core.config import Pruning
from bonsai_core.errors import InvalidRecipeError
from bonsai_core.recipe import Recipe
from bonsai_core.recipes.measured_damage import MeasuredDamage
from bonsai_core.recipes.random_masks import RandomMasks
from bonsai_core.recipes.statistics_only import StatisticsOnly

GROUP = "bonsai.recipes"
"""Entry points of this group name a callable that takes `Pruning` and gives a `Recipe`."""

BUILT_IN: Mapping[str, Callable[[Pruning], Recipe]] = {
    "measured_damage": MeasuredDamage,
    "random_masks": RandomMasks,
    "statistics": StatisticsOnly,
}


def recipe_for(pruning: Pruning) -> Recipe:
    """The recipe that a request names.

    Raises:
        InvalidRecipeError: there is none of that name, or its package does not load.
    """
    if pruning.recipe in BUILT_IN:
        return BUILT_IN[pruning.recipe](pruning)
    plug_ins = {point.name: point for point in entry_points(group=GROUP)}
    if pruning.recipe not in plug_ins:
        raise InvalidRecipeError(
            "there is no such recipe",
            field="pruning.recipe",
            value=pruning.recipe,
            allowed=", ".join([*BUILT_IN, *sorted(plug_ins)]),
            cure=f"install the package that offers it by the entry point group {GROUP!r}",
        )
    try:
        made: Recipe = plug_ins[pruning.recipe].load()(pruning)
    except Exception as error:  # a package may raise anything
        raise InvalidRecipeError(
            f"its package does not load: {type(error).__name__}: {error}",
            field="pruning.recipe",
            value=pruning.recipe,
            cure="repair or reinstall the package",
        ) from error
    return made
