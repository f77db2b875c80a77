"""From the name of a recipe to the recipe: built in, or a plug-in's."""

from collections.abc import Callable, Mapping

from bonsai_core.config import Prior, Pruning
from bonsai_core.errors import InvalidRecipeError
from bonsai_core.recipe import Recipe
from bonsai_core.recipes.measured_damage import MeasuredDamage
from bonsai_core.recipes.names import PLUG_INS, require_known
from bonsai_core.recipes.random_masks import RandomMasks
from bonsai_core.recipes.statistics_only import StatisticsOnly

Factory = Callable[[Pruning], Recipe]
"""Makes a recipe for a request, or refuses its settings by an `InvalidRecipeError`."""

FACTORIES: Mapping[str, Factory] = {
    "measured_damage": MeasuredDamage,
    "random_masks": RandomMasks,
    "statistics": StatisticsOnly,
}


def recipe_for(pruning: Pruning) -> Recipe:
    """The recipe that a request names; a built-in one goes before a plug-in.

    Raises:
        InvalidRecipeError: the name is unknown, or the plug-in does not give a recipe.
    """
    name = pruning.recipe
    require_known(name)
    made = (FACTORIES[name] if name in FACTORIES else _plug_in(name))(pruning)
    _require_recipe(made, name)
    return made


def _plug_in(name: str) -> Factory:
    factory: Factory = PLUG_INS.load(name)
    if callable(factory):
        return factory
    raise InvalidRecipeError(
        f"its plug-in is {type(factory).__name__}, not a factory",
        field="pruning.recipe",
        value=name,
        allowed="a callable that takes pruning and gives a recipe",
    )


def _require_recipe(made: object, name: str) -> None:
    questions = ("rounds", "propose", "decide")
    answers = all(callable(getattr(made, question, None)) for question in questions)
    if not answers or not isinstance(getattr(made, "prior", None), Prior):
        raise InvalidRecipeError(
            f"its factory gave {type(made).__name__}, which is no recipe",
            field="pruning.recipe",
            value=name,
            allowed=f"an object with a prior and methods {', '.join(questions)}",
        )
