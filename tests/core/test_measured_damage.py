"""Measured damage moves width to where its loss hurts most, and repairs by what was measured."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from bonsai_core.config import Layout, Pruning
from bonsai_core.families import GateKind
from bonsai_core.recipe import Decision, Situation, Trial, nothing
from bonsai_core.recipes.measured_damage import MeasuredDamage
from bonsai_core.recipes.probes import DAMPINGS
from bonsai_core.selection import GateShape

ATTENTION, MLP = 600, 100


def shapes_in_blocks(align: int) -> list[GateShape]:
    mlp = GateShape(GateKind.MLP, 64, MLP, block=align)
    return [GateShape(GateKind.ATTENTION, 4, ATTENTION), mlp] * 3


SHAPES = shapes_in_blocks(1)
TOTAL = sum(shape.units * shape.price for shape in SHAPES)
GOAL = 6000
Utility = Callable[[Trial], float]


def counts(absent: Sequence[np.ndarray]) -> list[int]:
    return [len(units) for units in absent]


def gone(absent: Sequence[np.ndarray]) -> int:
    return sum(len(units) * shape.price for units, shape in zip(absent, SHAPES, strict=True))


def harm(factors: Sequence[float], shapes: Sequence[GateShape] = SHAPES) -> Utility:
    """Each gate's damage is its factor times the cube of its loss; the best damping is 0.01."""

    def utility(trial: Trial) -> float:
        lost = [len(u) / s.units for u, s in zip(trial.absent, shapes, strict=True)]
        damage = sum(f * part**3 for f, part in zip(factors, lost, strict=True))
        return -damage * (1.0 if trial.damping is None else 1 + abs(np.log(trial.damping / 0.01)))

    return utility


class Play:
    """The rounds of a prune, with a utility in place of a model."""

    def __init__(
        self,
        utility: Utility,
        goal: int = GOAL,
        shapes: Sequence[GateShape] = SHAPES,
        **settings: Any,
    ) -> None:
        recipe = MeasuredDamage(Pruning(**settings))
        random = np.random.default_rng(0)
        self.scores = [random.permutation(s.units).astype(np.float64) for s in shapes]
        self.situations: list[Situation] = []
        self.trials: list[Sequence[Trial]] = []
        self.decisions: list[Decision] = []
        plan, earlier = nothing(shapes), []
        for number in range(1, 1 + recipe.rounds(goal, TOTAL)):
            situation = Situation(number, shapes, self.scores, plan, goal, TOTAL, earlier)
            trials = recipe.propose(situation)
            utilities = np.array([utility(trial) for trial in trials])
            decision = recipe.decide(situation, trials, utilities)
            earlier = [*earlier, plan] if any(map(len, plan)) else []
            plan = list(decision.absent)
            self.situations.append(situation)
            self.trials.append(trials)
            self.decisions.append(decision)

    @property
    def result(self) -> list[int]:
        return counts(self.decisions[-1].absent)


LAYOUTS = list(Layout)


def test_what_is_expected_of_a_plan_is_what_it_is_worth_where_damages_add_up() -> None:
    # By another damping than the last round's best, the harm is the same for all plans.
    play = Play(harm([1.0, 2.0, 4.0, 1.0, 0.5, 3.0]))
    notes = [decision.notes for decision in play.decisions]
    assert notes[0]["expected_utility"] == pytest.approx(notes[1]["plan_utility"], rel=1e-6)
    for before, after in pairwise(notes[1:-1]):
        gain = after["plan_utility"] - before["plan_utility"]
        expected = before["expected_utility"] - before["plan_utility"]
        # Slopes beside the plan, while the damage is a cube.
        assert gain == pytest.approx(expected, abs=0.25 * abs(before["plan_utility"]))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("align", [1, 8])
@pytest.mark.parametrize("goal", [1000, 6000, 14_000])
def test_every_plan_meets_the_goal_and_only_the_last_round_cuts(
    layout: Layout, align: int, goal: int
) -> None:
    play = Play(harm([1, 2, 1, 1, 5, 1]), goal, shapes_in_blocks(align), layout=layout)
    step = (3 if layout is Layout.UNIFORM else 1) * max(ATTENTION, align * MLP)
    for decision in play.decisions:
        assert goal <= gone(decision.absent) < goal + step
        widths = [64 - count for count in counts(decision.absent)[1::2]]
        assert all(width % align == 0 and width > 0 for width in widths)
        if layout is Layout.UNIFORM:
            assert len(set(widths)) == len(set(counts(decision.absent)[::2])) == 1
    assert [decision.cut for decision in play.decisions] == [
        *[False] * (len(play.decisions) - 1),
        True,
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_weakest_units_of_each_gate_go(layout: Layout) -> None:
    play = Play(harm([1, 2, 1, 1, 5, 1]), layout=layout)
    for decision in play.decisions:
        for units, scores in zip(decision.absent, play.scores, strict=True):
            assert (np.sort(scores[units]) == np.arange(len(units))).all()
            assert (np.diff(units) > 0).all()


def test_width_moves_from_where_its_loss_hurts_less_to_where_it_hurts_more() -> None:
    utility = harm([9, 1, 9, 8, 9, 2])
    play = Play(utility, improvements=3)
    for decision in (play.decisions[0], play.decisions[-1]):
        first, middle, last = counts(decision.absent)[1::2]
        assert first > last > middle
    assert utility(Trial(play.decisions[-1].absent, 0.01)) > utility(
        Trial(play.decisions[0].absent, 0.01)
    )


@pytest.mark.parametrize("align", [1, 8])
def test_the_first_round_lets_each_gate_alone_lose_some_and_plans_half_way(align: int) -> None:
    factors = [99, 1, 99, 8, 99, 2]
    play = Play(harm(factors), shapes=shapes_in_blocks(align))
    trials = play.trials[0]
    assert counts(trials[0].absent) == [0] * len(SHAPES)
    alone = [[(g, n) for g, n in enumerate(counts(trial.absent)) if n] for trial in trials[1:]]
    assert alone == [
        [(g, n)]
        for g in range(len(SHAPES))
        for n in ((16, 40 if align == 8 else 38), (1, 2))[~g % 2]
    ]
    # Damage f n^3 is least, with the sum of n given, where n goes with 1 / sqrt(f).
    shares = np.array([1, 8, 2]) ** -0.5
    best = GOAL / MLP * shares / shares.sum()
    half = (best + GOAL / MLP / 3) / 2
    assert np.abs(np.array(counts(play.decisions[0].absent)[1::2]) - half).max() <= max(2, align)


def test_the_experts_of_a_layer_are_tried_together_and_give_in_the_order_of_the_prior() -> None:
    layer = [GateShape(GateKind.ATTENTION, 4, ATTENTION), GateShape(GateKind.MLP, 64, MLP)]
    shapes = [
        shape
        for number in range(2)
        for shape in (*layer, *[GateShape(GateKind.MLP, 32, MLP, group=number)] * 3)
    ]
    first, second = [2, 3, 4], [7, 8, 9]
    play = Play(harm([9, 9, 1, 1, 1, 9, 9, 8, 8, 8], shapes), shapes=shapes, improvements=2)
    for situation, trials in zip(play.situations[:3], play.trials[:3], strict=True):
        before = counts(situation.plan)
        changes = [
            [gate for gate, count in enumerate(counts(trial.absent)) if count != before[gate]]
            for trial in list(trials)[1:]
        ]
        # As many trials as if each layer had one gate for all its experts.
        assert {tuple(gates) for gates in changes} == {
            *[(gate,) for gate in (0, 1, 5, 6)],
            tuple(first),
            tuple(second),
        }
    for decision in play.decisions:
        lost = counts(decision.absent)
        assert sum(lost[gate] for gate in first) > 3 + sum(lost[gate] for gate in second)
        for group in (first, second):
            going = [play.scores[gate][decision.absent[gate]] for gate in group]
            staying = [np.delete(play.scores[gate], decision.absent[gate]) for gate in group]
            assert np.concatenate(going).max() <= np.concatenate(staying).min()


def test_it_comes_close_to_the_best_widths_there_are() -> None:
    factors = [99, 1, 99, 8, 99, 2]
    utility = harm(factors)
    play = Play(utility, improvements=6)
    needed = GOAL // MLP
    damages = [
        sum(f * (c / 64) ** 3 for f, c in zip((1, 8, 2), (a, b, needed - a - b), strict=True))
        for a in range(63)
        for b in range(63)
        if 0 <= needed - a - b < 64
    ]
    found = -utility(Trial(play.decisions[-1].absent, 0.01))
    first = -utility(Trial(play.decisions[0].absent, 0.01))
    equal = 11 * (needed / 3 / 64) ** 3
    assert min(damages) <= found < 1.1 * min(damages) < first < 0.9 * equal


def test_a_layer_that_hurts_like_the_others_keeps_its_share() -> None:
    play = Play(harm([9, 3, 9, 3, 9, 3]), improvements=3)
    widths = play.result[1::2]
    assert max(widths) - min(widths) <= 2


def test_attention_gives_where_its_loss_costs_less() -> None:
    play = Play(harm([0.01, 5, 9, 5, 9, 5]), improvements=4)
    assert play.result[0] > 0 == play.result[2] == play.result[4]


def test_a_round_tries_the_plan_itself_and_changes_of_one_gate() -> None:
    play = Play(harm([1, 2, 1, 1, 5, 1]), improvements=2)
    for situation, trials in zip(play.situations[1:-2], play.trials[1:-2], strict=True):
        assert counts(trials[0].absent) == counts(situation.plan)
        layers = []
        for trial in list(trials)[1:]:
            pairs = zip(trial.absent, situation.plan, strict=True)
            changed = [g for g, (a, b) in enumerate(pairs) if not np.array_equal(a, b)]
            assert len(changed) == 1
            layers += changed
        # Neighbours belong together, and every gate is asked about.
        assert layers == sorted(layers)
        assert set(layers) == set(range(len(SHAPES)))


def test_the_best_of_all_plans_is_taken_however_it_was_come_by() -> None:
    usual = harm([9, 1, 9, 8, 9, 2])
    second = counts(Play(usual, improvements=3).decisions[1].absent)

    def best_at_second(trial: Trial) -> float:
        return usual(trial) + (1000 if counts(trial.absent) == second else 0)

    play = Play(best_at_second, improvements=3)
    plans = [counts(decision.absent) for decision in play.decisions[:4]]
    assert plans[1] == second != plans[0]
    assert [counts(trial.absent) for trial in play.trials[-2]] == plans[::-1]
    assert play.result == second


def test_the_last_round_tries_dampings_of_the_plan_and_takes_the_best() -> None:
    play = Play(harm([1, 2, 1, 1, 5, 1]), damping=0.5)
    *_, before, last = play.decisions
    assert {trial.damping for trial in play.trials[-1]} >= set(DAMPINGS)
    assert all(counts(trial.absent) == counts(before.absent) for trial in play.trials[-1])
    assert (before.damping, last.damping) == (0.5, 0.01)
    assert all(trial.damping == 0.5 for trials in play.trials[:-1] for trial in trials)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_refit_nothing_is_repaired(layout: Layout) -> None:
    play = Play(harm([1, 2, 1, 1, 5, 1]), refit=False, layout=layout)
    assert all(decision.damping is None for decision in play.decisions)
    assert all(trial.damping is None for trials in play.trials for trial in trials)


def test_equal_widths_find_how_attention_and_mlps_share() -> None:
    for factors, few in (([9.0, 0.1] * 3, True), ([0.01, 5.0] * 3, False)):
        play = Play(harm(factors), 9000, layout="uniform")
        assert (play.result[0] == 0) is few
        best = max(play.trials[1], key=harm(factors))
        assert play.result == counts(best.absent)


def test_a_loss_that_looks_like_a_gain_does_no_harm_to_the_plan() -> None:
    play = Play(harm([1, -5, 1, 2, 1, 2]), improvements=3)
    assert play.result[1] > max(play.result[3], play.result[5])
    assert all(count < 64 for count in play.result[1::2])


def test_utilities_that_say_nothing_still_lead_to_the_goal() -> None:
    play = Play(lambda _trial: 0.0)
    assert GOAL <= gone(play.decisions[-1].absent) < GOAL + ATTENTION


def test_the_same_situation_gets_the_same_answers() -> None:
    one, other = (Play(harm([1, 2, 1, 1, 5, 1])) for _ in range(2))
    assert one.result == other.result
    assert [len(trials) for trials in one.trials] == [len(trials) for trials in other.trials]
