"""The paper's recipe finds the units that do no harm, and answers the same question alike."""

import numpy as np
import pytest

from bonsai_core.config import Pruning
from bonsai_core.families import GateKind
from bonsai_core.recipe import Bonsai, Situation, Trials
from bonsai_core.selection import GateShape

HARMLESS = [np.array([0, 3]), np.array([1, 2, 6, 7, 8])]
SHAPES = [GateShape(GateKind.ATTENTION, 6, 300), GateShape(GateKind.MLP, 12, 100)]


def situation(number: int = 1) -> Situation:
    """Half of each gate can go; the prior knows nothing of who is harmless."""
    scores = [np.where(np.isin(np.arange(s.units), [4, 5, 11, 10]), 2.0, 1.0) for s in SHAPES]
    return Situation(round=number, shapes=SHAPES, scores=scores, budget=1100)


def utilities(trials: Trials) -> np.ndarray:
    """Every unit that is missing costs 1, but for the harmless ones."""
    return np.array(
        [
            -sum(
                len(np.setdiff1d(units, harmless))
                for units, harmless in zip(trials.absent(trial), HARMLESS, strict=True)
            )
            for trial in range(len(trials))
        ],
        dtype=np.float64,
    )


@pytest.mark.parametrize("seed", range(3))
def test_units_that_do_no_harm_are_found_and_go(seed: int) -> None:
    recipe = Bonsai(Pruning(masks_per_round=200, seed=seed))
    trials = recipe.propose(situation())
    decision = recipe.decide(situation(), trials, utilities(trials))
    assert [units.tolist() for units in decision.removed] == [h.tolist() for h in HARMLESS]
    assert decision.fit.explained > 0.99


def test_the_same_situation_gets_the_same_trials_and_another_round_others() -> None:
    recipe = Bonsai(Pruning(masks_per_round=8, seed=1))
    first, again = recipe.propose(situation()), Bonsai(Pruning(masks_per_round=8, seed=1))
    assert (first.masks == again.propose(situation()).masks).all()
    assert (first.masks != recipe.propose(situation(2)).masks).any()


def test_trials_lack_candidates_only_and_pairs_cover_them() -> None:
    trials = Bonsai(Pruning(masks_per_round=8)).propose(situation())
    for trial in range(0, len(trials), 2):
        pair = zip(trials.absent(trial), trials.absent(trial + 1), strict=True)
        both = [np.sort(np.concatenate(units)).tolist() for units in pair]
        assert both == [units.tolist() for units in trials.candidates]
