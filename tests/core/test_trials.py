"""A trial always restores, and a plan in place is what cutting it gives."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bonsai_core import trials
from bonsai_core.blocks import Blocks
from bonsai_core.config import ModelSource
from bonsai_core.errors import Stopped
from bonsai_core.gates import Gate, Units, gates_of
from bonsai_core.models import LoadedModel, load
from bonsai_core.recipe import Trial
from bonsai_core.refit import repaired
from bonsai_core.second_moments import SecondMoments, gather
from bonsai_core.surgery import cut
from bonsai_core.trials import Bench
from bonsai_core.utilities.function import from_function
from bonsai_core.utilities.mixture import Mixture, mixture_of
from bonsai_core.utilities.settings import parts_of
from bonsai_core.utilities.utility import LiveModel

RANDOM = torch.Generator().manual_seed(0)
LISTENED = torch.randint(0, 256, (8, 40), generator=RANDOM)
TRIED = torch.randint(0, 256, (4, 20), generator=RANDOM)


class Setting:
    """A live model with a bench on it."""

    def __init__(self, folder: Path, scratch: Path, utility: str = "nll") -> None:
        self.loaded: LoadedModel = load(ModelSource(source=str(folder)), torch.device("cpu"))
        loaded = self.loaded
        self.gates: list[Gate] = gates_of(loaded.model, loaded.family, loaded.widths)
        live = LiveModel(loaded.model, loaded.family, loaded.tokenizer, loaded.device)
        given = {"spread": from_function(lambda live, tokens: live.model(tokens).logits.std())}
        self.mixture: Mixture = mixture_of(live, TRIED, parts_of(utility), given)
        self.bench = Bench(self.gates, self.blocks(TRIED), self.mixture)
        self.moments: SecondMoments = gather(self.blocks(LISTENED), self.gates, scratch)
        self.bench.moments = self.moments

    def blocks(self, sequences: Tensor) -> Blocks:
        model, family = self.loaded.model, self.loaded.family
        layers = model.get_submodule(family.layers)
        return Blocks(model.get_submodule(family.backbone), layers, sequences)

    @torch.inference_mode()
    def logits(self) -> Tensor:
        found: Tensor = self.loaded.model(TRIED, use_cache=False).logits
        return found

    def state(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.loaded.model.state_dict().items()}

    def plan(self, count: int, gates: Sequence[int] | None = None) -> list[Units]:
        """The first units but one of each gate, or of some, leaving one at least."""
        chosen = range(len(self.gates)) if gates is None else gates
        return [
            np.arange(1, min(gate.units, 1 + count)) if number in chosen else np.arange(0)
            for number, gate in enumerate(self.gates)
        ]


MakeSetting = Callable[..., Setting]


@pytest.fixture
def setting(saved_model: Callable[..., Path], architecture: str, tmp_path: Path) -> Setting:
    return Setting(saved_model(architecture, layers=3), tmp_path / "moments")


@pytest.fixture
def llama(saved_model: Callable[..., Path], tmp_path: Path) -> MakeSetting:
    return lambda utility="nll": Setting(saved_model(layers=3), tmp_path / "moments", utility)


DAMPINGS = [None, 1e-2]


@pytest.fixture(params=[trials.SWAPPED_AT_MOST, 1])
def swapped_at_most(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large trials are measured beside the plan, as in a small model, or in its place."""
    monkeypatch.setattr(trials, "SWAPPED_AT_MOST", request.param)


@pytest.mark.parametrize("damping", DAMPINGS)
def test_a_plan_in_place_computes_what_cutting_it_gives(
    setting: Setting, damping: float | None
) -> None:
    plan, dense = setting.plan(9), setting.logits()
    setting.bench.put_in_place(Trial(plan, damping))
    planned, weights = setting.logits(), setting.bench.weights()
    for gate, units in zip(setting.gates, plan, strict=True):
        cut(gate, units)
        if gate.name in weights:
            gate.output.weight.data.copy_(weights[gate.name])
    assert torch.allclose(planned, setting.logits(), rtol=0, atol=1e-4)
    assert not torch.allclose(planned, dense, rtol=0, atol=0.1)


def test_the_weights_are_those_in_place_once_something_is_repaired(setting: Setting) -> None:
    plan = setting.plan(9, gates=[1, 4])
    setting.bench.put_in_place(Trial(plan, 1e-2))
    weights = setting.bench.weights()
    assert list(weights) == [gate.name for gate in setting.gates]
    for number, gate in enumerate(setting.gates):
        if number not in (1, 4):
            assert torch.equal(weights[gate.name], setting.moments.weight(gate))
            continue
        gone = torch.zeros(gate.output.in_features, dtype=torch.bool)
        gone[gate.columns_of(plan[number])] = True
        moments, dense = setting.moments.of(gate), setting.moments.weight(gate)
        expected = repaired(dense, moments, gone, 1e-2)[:, ~gone]
        assert torch.equal(weights[gate.name], expected)
    setting.bench.put_in_place(Trial(plan, None))
    assert setting.bench.weights() == {}


@pytest.mark.usefixtures("swapped_at_most")
@pytest.mark.parametrize("damping", DAMPINGS)
@pytest.mark.parametrize("planned", [False, True])
def test_a_trial_is_worth_what_the_model_is_with_it_in_place(
    setting: Setting, damping: float | None, planned: bool
) -> None:
    if planned:
        setting.bench.put_in_place(Trial(setting.plan(4), 1e-1))
    tried = [Trial(setting.plan(9, gates), damping) for gates in ([5], [2, 3], None, [0], [])]
    found = [setting.bench.measure(trial) for trial in tried]
    for trial, utility in zip(tried, found, strict=True):
        setting.bench.put_in_place(trial)
        assert utility == pytest.approx(setting.mixture.measure(), rel=1e-5)
    assert len(set(found)) == len(found)


@pytest.mark.usefixtures("swapped_at_most")
@pytest.mark.parametrize("damping", DAMPINGS)
@pytest.mark.parametrize("planned", [False, True])
def test_after_a_trial_every_bit_comes_back(
    setting: Setting, damping: float | None, planned: bool
) -> None:
    if planned:
        setting.bench.put_in_place(Trial(setting.plan(4), 1e-1))
    before, logits = setting.state(), setting.logits()
    setting.bench.measure(Trial(setting.plan(9), damping))
    asked = 0

    def stop() -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise Stopped

    with pytest.raises(Stopped):
        setting.bench.measure(Trial(setting.plan(6), damping), stop)
    setting.bench.settle()
    after = setting.state()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert torch.equal(setting.logits(), logits)
    modules = list(setting.loaded.model.modules())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in modules)


@pytest.mark.usefixtures("swapped_at_most")
def test_trials_far_from_the_plan_follow_one_another_without_going_back(
    llama: MakeSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = llama()
    setting.bench.put_in_place(Trial(setting.plan(4), 1e-2))
    repairs = 0

    def counting(*arguments: Any) -> Tensor:
        nonlocal repairs
        repairs += 1
        return repaired(*arguments)

    monkeypatch.setattr(trials, "repaired", counting)
    for damping in (1e-3, 1e-1, 1.0):
        setting.bench.plan(Trial(setting.plan(4), 1e-2))
        setting.bench.measure(Trial(setting.plan(4), damping))
    setting.bench.put_in_place(Trial(setting.plan(4), 1.0))
    at_most = 3 if trials.SWAPPED_AT_MOST == 1 else 4
    assert repairs == at_most * len(setting.gates)


def test_the_order_of_plans_and_trials_leaves_no_trace(setting: Setting) -> None:
    last = Trial(setting.plan(7), 1e-2)
    setting.bench.put_in_place(last)
    direct = setting.state()
    for trial in (Trial(setting.plan(3), 1e-1), Trial(setting.plan(9, [1]), None), last):
        setting.bench.put_in_place(trial)
        setting.bench.measure(Trial(setting.plan(2, [0]), 1e-3))
    after = setting.state()
    assert all(torch.equal(after[name], value) for name, value in direct.items())
    setting.bench.put_in_place(Trial(setting.plan(0), None))
    for gate in setting.gates:
        assert torch.equal(gate.output.weight, setting.moments.weight(gate))


def test_trials_of_late_layers_share_one_pass_through_the_early_ones(llama: MakeSetting) -> None:
    setting = llama()
    setting.bench.put_in_place(Trial(setting.plan(4), 1e-2))
    counts = [0, 0, 0]
    for layer, gate in enumerate(setting.gates[1::2]):

        def count(*_: object, layer: int = layer) -> None:
            counts[layer] += 1

        gate.output.register_forward_hook(count)
    for count_of_last in (5, 6, 7):
        last = setting.plan(count_of_last)[5:]
        setting.bench.measure(Trial([*setting.plan(4)[:5], *last], 1e-2))
    assert counts == [1, 1, 3]


def test_a_utility_that_runs_the_model_itself_sees_the_trial(llama: MakeSetting) -> None:
    setting = llama("spread")
    setting.bench.put_in_place(Trial(setting.plan(4), 1e-2))
    setting.bench.measure(Trial(setting.plan(9, [4, 5]), 1e-2))
    found = setting.bench.measure(Trial(setting.plan(9, [3]), 1e-2))
    setting.bench.put_in_place(Trial(setting.plan(9, [3]), 1e-2))
    assert found == pytest.approx(setting.logits().std().item(), rel=1e-5)


def test_after_a_cut_the_bench_starts_anew(llama: MakeSetting) -> None:
    setting = llama()
    setting.bench.put_in_place(Trial(setting.plan(4), None))
    for gate, units in zip(setting.gates, setting.plan(4), strict=True):
        cut(gate, units)
    setting.bench.clear()
    assert setting.bench.moments is None
    assert setting.bench.weights() == {}
    expected = setting.mixture.measure()
    assert setting.bench.measure(Trial(setting.plan(0))) == expected
    assert setting.bench.measure(Trial(setting.plan(3, [1]))) != expected
