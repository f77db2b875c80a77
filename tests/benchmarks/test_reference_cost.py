"""The reference's structure computes what ours does, and its regression finds what is there."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.first_round import FirstRound
from benchmarks.reference_cost import measure
from benchmarks.reference_regression import kendall, regress
from benchmarks.round_cost import measure as measure_round
from bonsai_core.models import LoadedModel
from bonsai_core.utilities.utility import LiveModel
from tests.benchmarks.conftest import SEQUENCES, paragraphs


@pytest.fixture
def first_round(loaded: LoadedModel) -> FirstRound:
    live = LiveModel(copy.deepcopy(loaded.model), loaded.family, loaded.tokenizer, loaded.device)
    return FirstRound(live, loaded.widths, SEQUENCES[:2], 8)


def test_both_structures_find_the_same_perplexity_and_every_part_is_measured(
    first_round: FirstRound, tmp_path: Path
) -> None:
    files = [paragraphs(tmp_path / name, characters=2000) for name in ("one.txt", "two.txt")]
    found = measure(first_round, files, 2)
    assert found.fits == 181
    assert found.apart < 1e-5
    ours, reference = (side.round(8) for side in (found.ours, found.reference))
    assert set(ours) < set(reference)
    assert reference["loading and tokenising"].cpu > 0
    one_by_one = sum(mask["masked forward passes"].cpu for mask in found.ours.masks)
    assert ours["masked forward passes"].cpu == pytest.approx(4 * one_by_one)


def test_a_rounds_parts_are_measured_on_a_model_that_ends_cut(first_round: FirstRound) -> None:
    before = sum(gate.units for gate in first_round.gates)
    report = measure_round(first_round, "tiny")
    assert report.values["masked_over_plain"] > 0
    assert 0 < report.values["share_of_other_parts"] < 1
    assert sum(gate.units for gate in first_round.gates) < before


def test_the_regression_ranks_candidates_by_what_their_absence_costs() -> None:
    random = np.random.default_rng(0)
    masks = random.random((60, 10)) < 0.5
    importance = np.arange(10.0)
    weights, fits = regress(masks, -(masks @ importance))
    assert fits == 181
    assert kendall(-weights, torch.from_numpy(importance)) > 0.5
