"""The recipe of the page is installed as a package would be, and prunes a model."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bonsai_core.config import PruneRequest, Pruning
from bonsai_core.families import GateKind
from bonsai_core.ledger import MemoryLedger
from bonsai_core.pruner import prune
from bonsai_core.recipe import Situation, Trial, nothing
from bonsai_core.recipes.names import BUILT_IN, GROUP
from bonsai_core.recipes.registry import recipe_for
from bonsai_core.selection import GateShape
from tests.core.conftest import blocks_of, contents

PAGE = Path(__file__).parents[2] / "docs" / "add-a-recipe.md"


@pytest.fixture
def name(install_package: Callable[..., None]) -> str:
    """The name of the page's recipe, installed."""
    (source,) = blocks_of(PAGE, "python")
    (project,) = blocks_of(PAGE, "toml")
    assert f'"{GROUP}"' in project
    point = re.search(r'^(\w+) = "([\w:]+)"$', project, flags=re.MULTILINE)
    assert point is not None
    install_package(GROUP, "tilted", source, {point[1]: point[2]})
    return point[1]


@pytest.mark.parametrize("layout", ["per_layer", "uniform"])
@pytest.mark.parametrize("refit", [True, False])
def test_the_recipe_of_the_page_prunes_a_model(
    saved_model: Callable[..., Path],
    request_for: Callable[..., PruneRequest],
    tmp_path: Path,
    name: str,
    layout: str,
    refit: bool,
) -> None:
    request = request_for(
        saved_model(layers=3), preset="best", recipe=name, layout=layout, refit=refit
    )
    ledger = MemoryLedger()
    result = prune(request, tmp_path / "out", ledger=ledger, device="cpu")
    assert result.sparsity >= 0.4
    rounds = json.loads((tmp_path / "out" / "bonsai.json").read_text())["rounds"]
    assert [record["cut"] for record in rounds] == [False, True]
    assert [record["trials"] for record in rounds] == [9, 3 if refit else 1]
    # It goes on with the best, and with the best damping of that.
    tried = ledger.utilities(1)
    assert rounds[0]["notes"]["tilt"] == np.linspace(-2, 2, 9)[max(tried, key=lambda t: tried[t])]
    assert max(ledger.utilities(2).values()) >= max(tried.values()) - 1e-6
    again = prune(request, tmp_path / "again", ledger=ledger, device="cpu")
    assert again.masks_evaluated == 0
    assert contents(tmp_path / "again") == contents(tmp_path / "out")


def test_the_tilt_moves_the_loss_towards_later_layers(name: str) -> None:
    shapes = [GateShape(GateKind.MLP, 100, 10)] * 4
    scores = [np.arange(100.0)] * 4
    situation = Situation(1, shapes, scores, nothing(shapes), 2000, 4000)
    trials = recipe_for(Pruning(recipe=name)).propose(situation)
    losses = np.array([[len(units) for units in trial.absent] for trial in trials])
    assert (losses.sum(axis=1) >= 200).all()
    assert (np.diff(losses[:, -1]) > 0).all()
    assert (np.diff(losses[:, 0]) < 0).all()
    assert np.ptp(losses[4]) <= 1
    assert all(isinstance(trial, Trial) for trial in trials)


def test_the_page_names_every_recipe_that_comes_with_the_project() -> None:
    table = re.findall(r"^\| `(\w+)` \| `\w+` \|", PAGE.read_text(), flags=re.MULTILINE)
    assert table == list(BUILT_IN)
