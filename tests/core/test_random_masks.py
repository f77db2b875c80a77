"""The paper's recipe finds the units that do no harm, and answers the same question alike."""

from typing import Any

import numpy as np
import pytest

from bonsai_core.config import Pruning
from bonsai_core.families import GateKind
from bonsai_core.recipe import Situation, Trial, nothing
from bonsai_core.recipes.random_masks import MaskTrials, RandomMasks
from bonsai_core.selection import GateShape

HARMLESS = [np.array([0, 3]), np.array([1, 2, 6, 7, 8])]
SHAPES = [GateShape(GateKind.ATTENTION, 6, 300), GateShape(GateKind.MLP, 12, 100)]
TOTAL = 3000


def recipe(**settings: Any) -> RandomMasks:
    return RandomMasks(Pruning(preset="paper", **{"sparsity_per_round": 0.5} | settings))


def situation(number: int = 1, goal: int = 1100) -> Situation:
    """Half of each gate can go; the prior knows nothing of who is harmless."""
    scores = [np.where(np.isin(np.arange(s.units), [4, 5, 11, 10]), 2.0, 1.0) for s in SHAPES]
    return Situation(
        round=number, shapes=SHAPES, scores=scores, plan=nothing(SHAPES), goal=goal, total=TOTAL
    )


def utilities(trials: MaskTrials) -> np.ndarray:
    """Every unit that is missing costs 1, but for the harmless ones."""
    return np.array([-harm(trial) for trial in trials], dtype=np.float64)


def harm(trial: Trial) -> int:
    pairs = zip(trial.absent, HARMLESS, strict=True)
    return sum(len(np.setdiff1d(units, harmless)) for units, harmless in pairs)


@pytest.mark.parametrize("seed", range(3))
def test_units_that_do_no_harm_are_found_and_go(seed: int) -> None:
    asked = recipe(masks_per_round=200, seed=seed)
    trials = asked.propose(situation())
    decision = asked.decide(situation(), trials, utilities(trials))
    assert [units.tolist() for units in decision.absent] == [h.tolist() for h in HARMLESS]
    assert decision.cut
    assert decision.notes["explained"] > 0.99
    assert decision.notes["candidates"] == trials.masks.shape[1]


def test_the_same_situation_gets_the_same_trials_and_another_round_others() -> None:
    asked = recipe(masks_per_round=8, seed=1)
    first, again = asked.propose(situation()), recipe(masks_per_round=8, seed=1)
    assert (first.masks == again.propose(situation()).masks).all()
    assert (first.masks != asked.propose(situation(2)).masks).any()
    assert (first.masks != recipe(masks_per_round=8, seed=2).propose(situation()).masks).any()


def test_trials_lack_candidates_only_and_pairs_cover_them() -> None:
    trials = recipe(masks_per_round=8).propose(situation())
    assert len(trials) == 8
    for number in range(0, len(trials), 2):
        pair = zip(trials[number].absent, trials[number + 1].absent, strict=True)
        both = [np.sort(np.concatenate(units)).tolist() for units in pair]
        assert both == [units.tolist() for units in trials.candidates]


def test_a_part_of_the_trials_is_the_same_trials() -> None:
    trials = recipe(masks_per_round=8).propose(situation())
    part = trials[2:6]
    assert len(part) == 4
    for one, same in zip(part, list(trials)[2:6], strict=True):
        assert all((a == b).all() for a, b in zip(one.absent, same.absent, strict=True))


def test_trials_do_not_repair() -> None:
    assert all(trial.damping is None for trial in recipe(refit=True).propose(situation()))


def test_a_round_takes_its_share_and_the_last_one_what_is_left() -> None:
    asked = recipe(sparsity_per_round=0.1, masks_per_round=40)
    assert asked.rounds(1100, TOTAL) == 4
    assert asked.rounds(900, TOTAL) == 3
    for goal, least in ((1100, 300), (150, 150)):
        trials = asked.propose(situation(goal=goal))
        absent = asked.decide(situation(goal=goal), trials, utilities(trials)).absent
        gone = sum(len(units) * s.price for units, s in zip(absent, SHAPES, strict=True))
        assert least <= gone < least + max(shape.price for shape in SHAPES)


def test_the_cut_is_repaired_where_that_is_asked_for() -> None:
    for refit, expected in ((True, 0.02), (False, None)):
        asked = recipe(refit=refit, damping=0.02, masks_per_round=8)
        trials = asked.propose(situation())
        assert asked.decide(situation(), trials, utilities(trials)).damping == expected


def test_utilities_that_say_nothing_leave_the_regularisation_out_of_the_record() -> None:
    asked = recipe(masks_per_round=8)
    trials = MaskTrials([np.array([0]), np.array([1])], np.zeros((8, 2), dtype=np.bool_))
    notes = asked.decide(situation(goal=100), trials, np.zeros(8)).notes
    assert notes["regularisation"] is None
    assert notes["explained"] == 0
