"""Recipes are found by name: those of the project, and those of packages that offer one."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest

from bonsai_core.config import PRESETS, Preset, Prior, Pruning
from bonsai_core.errors import InvalidRecipeError
from bonsai_core.recipes.measured_damage import MeasuredDamage
from bonsai_core.recipes.names import BUILT_IN, GROUP, require_known
from bonsai_core.recipes.random_masks import RandomMasks
from bonsai_core.recipes.registry import FACTORIES, recipe_for
from bonsai_core.recipes.statistics_only import StatisticsOnly

Install = Callable[..., None]
RECIPE = """
from bonsai_core.config import Prior

class Mine:
    prior = Prior.RANDOM
    def __init__(self, pruning): self.seed = pruning.seed
    def rounds(self, goal, total): return 1
    def propose(self, situation): return []
    def decide(self, situation, trials, utilities): raise NotImplementedError
"""


@pytest.fixture
def install(install_package: Callable[..., None]) -> Install:
    return partial(install_package, GROUP)


@pytest.mark.parametrize(
    ("preset", "kind"),
    [("best", MeasuredDamage), ("paper", RandomMasks), ("statistics", StatisticsOnly)],
)
def test_every_preset_has_its_recipe(preset: str, kind: type) -> None:
    pruning = Pruning.model_validate({"preset": preset})
    assert type(recipe_for(pruning)) is kind
    assert recipe_for(pruning).prior is PRESETS[Preset(preset)]["prior"]
    changed = Pruning.model_validate({"preset": preset, "prior": "fluctuation"})
    assert recipe_for(changed).prior is Prior.FLUCTUATION


def test_the_table_of_names_is_that_of_the_factories() -> None:
    assert set(BUILT_IN) == set(FACTORIES)


def test_a_recipe_comes_from_a_package(install: Install) -> None:
    install("some_plug_in", RECIPE, {"mine": "some_plug_in:Mine"})
    made = recipe_for(Pruning(recipe="mine", seed=7))
    assert (type(made).__name__, made.prior, made.seed) == ("Mine", Prior.RANDOM, 7)  # type: ignore[attr-defined]


def test_an_unknown_name_is_told_the_known_ones(install: Install) -> None:
    install("some_plug_in", "raise RuntimeError('imported')", {"mine": "some_plug_in:Mine"})
    for refuse in (require_known, lambda name: recipe_for(Pruning(recipe=name))):
        with pytest.raises(InvalidRecipeError, match="no recipe has this name") as caught:
            refuse("elegance")
        assert caught.value.code == "invalid_recipe"
        assert (caught.value.field, caught.value.value) == ("pruning.recipe", "elegance")
        assert caught.value.allowed == "measured_damage, random_masks, statistics, mine"
        assert GROUP in caught.value.cure
    require_known("mine")  # known, and not imported
    assert "some_plug_in" not in sys.modules


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError.*repair or uninstall broken_plug"),
        ("raise RuntimeError('at import')", "RuntimeError: at import"),
        ("", "AttributeError"),
        ("Mine = 3", "is int, not a factory"),
        ("def Mine(pruning): return 3", "gave int, which is no recipe.*a prior and methods"),
        (RECIPE.replace("def propose", "def suggest"), "gave Mine, which is no recipe"),
        (RECIPE.replace("prior = Prior.RANDOM", "prior = 'best'"), "gave Mine, which is no recipe"),
    ],
)
def test_a_plug_in_that_gives_no_recipe_is_named(
    install: Install, source: str, problem: str
) -> None:
    install("broken_plug_in", source, {"mine": "broken_plug_in:Mine"})
    with pytest.raises(InvalidRecipeError, match=problem) as caught:
        recipe_for(Pruning(recipe="mine"))
    assert (caught.value.field, caught.value.value) == ("pruning.recipe", "mine")


def test_a_plug_in_refuses_its_settings_in_its_own_words(install: Install) -> None:
    source = (
        "from bonsai_core.errors import InvalidRecipeError\n"
        "def mine(pruning):\n"
        "    raise InvalidRecipeError('no such seed', field='pruning.seed', value=pruning.seed)\n"
    )
    install("strict_plug_in", source, {"mine": "strict_plug_in:mine"})
    with pytest.raises(InvalidRecipeError, match=r"pruning\.seed: no such seed \(got 3\)"):
        recipe_for(Pruning(recipe="mine", seed=3))


def test_two_packages_with_one_name_are_refused(install: Install) -> None:
    install("first_plug_in", RECIPE, {"mine": "first_plug_in:Mine"})
    install("second_plug_in", RECIPE, {"mine": "second_plug_in:Mine"})
    with pytest.raises(InvalidRecipeError, match=r"first_plug_in.*uninstall one"):
        recipe_for(Pruning(recipe="mine"))


def test_a_plug_in_cannot_take_a_built_in_name(install: Install) -> None:
    install("bold_plug_in", "raise RuntimeError", {"statistics": "bold_plug_in:Mine"})
    assert type(recipe_for(Pruning(recipe="statistics"))) is StatisticsOnly


def test_what_the_api_needs_loads_no_torch() -> None:
    code = (
        "import sys, bonsai_core.recipes.names; "
        "print('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
