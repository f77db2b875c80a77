"""Every baseline meets its target and leaves the live model as it was; repairs repair."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.baselines import BASELINES, Subject, mean_biases, obs_order, repair
from benchmarks.calibration_statistics import Need
from benchmarks.change import Change, changed
from benchmarks.unit_scores import wanda
from bonsai_core.families import GateKind
from bonsai_core.gates import Gate, Units, gates_of
from bonsai_core.models import LoadedModel, non_embedding_parameters
from bonsai_core.surgery import cut
from tests.benchmarks.conftest import SEQUENCES


def logits(loaded: LoadedModel) -> Tensor:
    with torch.inference_mode():
        return loaded.model(SEQUENCES[:2]).logits


def change_by(name: str, subject: Subject, sparsity: float) -> Change:
    baseline = BASELINES[name]
    subject.statistics.prepare(baseline.needs)
    return baseline.prune(subject, sparsity)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("sparsity", [0.1, 0.3, 0.5])
def test_the_target_is_met_within_half_a_channel(
    subject: Subject, name: str, sparsity: float
) -> None:
    change = change_by(name, subject, sparsity)
    channel = min(gate.price for gate in subject.gates)
    assert abs(change.removed(subject.gates) - sparsity * subject.total) <= channel / 2


@pytest.mark.parametrize("name", BASELINES)
def test_the_same_seed_gives_the_same_change_and_the_model_is_restored(
    loaded: LoadedModel, subject: Subject, name: str
) -> None:
    before = logits(loaded)
    first, second = (change_by(name, subject, 0.3) for _ in range(2))
    with changed(subject.gates, first):
        during = logits(loaded)
    assert not torch.allclose(before, during, atol=1e-2)
    assert torch.equal(before, logits(loaded))
    assert all(gate.output.bias is None for gate in subject.gates)
    with changed(subject.gates, second):
        assert torch.equal(during, logits(loaded))


@pytest.mark.parametrize("name", ["wanda-uniform", "obs-refit"])
def test_a_changed_live_model_computes_what_the_cut_one_does(
    loaded: LoadedModel, subject: Subject, name: str
) -> None:
    change = change_by(name, subject, 0.3)
    model = copy.deepcopy(loaded.model)
    before = non_embedding_parameters(model)
    for gate, units in zip(
        gates_of(model, loaded.family, loaded.widths), change.absent, strict=True
    ):
        if gate.name in change.weights:
            gate.output.weight.copy_(change.weights[gate.name])
        cut(gate, units)
    assert before - non_embedding_parameters(model) == change.removed(subject.gates)
    with changed(subject.gates, change), torch.inference_mode():
        torch.testing.assert_close(
            logits(loaded), model(SEQUENCES[:2]).logits, atol=2e-4, rtol=1e-4
        )


def test_the_biases_of_flap_keep_the_mean_output(
    loaded: LoadedModel, subject: Subject, inputs: dict[str, Tensor]
) -> None:
    subject.statistics.prepare(Need.COLUMNS)
    for place, gate in enumerate(subject.gates):
        absent = [np.array([], dtype=np.int64) for _ in subject.gates]
        absent[place] = np.array([1])
        biases = mean_biases(subject, absent)
        assert list(biases) == [gate.name]
        change = Change(absent, biases=biases)
        assert change.added(subject.gates) == gate.output.out_features
        expected = (inputs[gate.name] @ gate.output.weight.T).mean(0)
        heard: list[Tensor] = []
        handle = gate.output.register_forward_hook(
            lambda _module, _inputs, found, heard=heard: heard.append(found.flatten(0, 1))
        )
        with changed(subject.gates, change), torch.inference_mode():
            loaded.model(SEQUENCES)
        handle.remove()
        torch.testing.assert_close(heard[0].mean(0), expected, atol=1e-4, rtol=1e-3)


def error(gate: Gate, change: Change, x: Tensor) -> float:
    """Mean squared error of a gate's output, summed over rows."""
    lost = gate.output.weight - change.weights[gate.name]
    return float((x @ lost.T).square().sum(1).mean())


@pytest.mark.parametrize("kind", [GateKind.ATTENTION, GateKind.MLP])
def test_obs_loses_less_than_wanda_and_the_repair_less_than_none(
    subject: Subject, inputs: dict[str, Tensor], kind: GateKind
) -> None:
    subject.statistics.prepare(Need.MOMENTS)
    obs, by_wanda, unrepaired = 0.0, 0.0, 0.0
    for place, gate in enumerate(subject.gates):
        if gate.kind is not kind:
            continue
        count = gate.units // 2
        counts = [count if other == place else 0 for other in range(len(subject.gates))]
        mean_square = subject.statistics.mean_square(gate, Need.MOMENTS)
        scores = wanda(gate.output.weight, mean_square, gate.columns)
        absent: list[Units] = [np.array([], dtype=np.int64) for _ in subject.gates]
        absent[place] = np.sort(np.argsort(scores)[:count])
        x = inputs[gate.name]
        obs += error(gate, repair(subject, obs_order(subject, counts)), x)
        by_wanda += error(gate, repair(subject, absent), x)
        columns = gate.columns_of(absent[place])
        gone = x[:, columns] @ gate.output.weight[:, columns].T
        unrepaired += float(gone.square().sum(1).mean())
    assert obs <= by_wanda < unrepaired


def test_each_statistic_costs_one_pass_and_is_charged_again_when_read_from_disk(
    loaded: LoadedModel, subject: Subject
) -> None:
    for need in (Need.COLUMNS, Need.MOMENTS, Need.COLUMNS):
        spent = subject.statistics.prepare(need)
        # Blocks run one token more, to see what form a layer's answer has.
        assert spent.forward_tokens - SEQUENCES.numel() in {0, 1}
        assert spent.wall_seconds > 0
    assert subject.statistics.prepare(Need.NOTHING).forward_tokens == 0
