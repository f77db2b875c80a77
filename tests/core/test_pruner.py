"""The whole loop: targets are met and not passed, a run can end anywhere and go on the same."""

import gc
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import AutoModelForCausalLM, PreTrainedModel

from bonsai_core import events
from bonsai_core.batch import batch_of
from bonsai_core.blocks import Blocks
from bonsai_core.calibration import calibration_batch
from bonsai_core.confidence import FinalNorm
from bonsai_core.config import DType, Layout, ModelSource, Prior, PruneRequest, Pruning
from bonsai_core.correction import Streams, correct
from bonsai_core.errors import (
    BrokenNumericsError,
    InputsChangedError,
    InsufficientMemoryError,
    InvalidCalibrationError,
    PruneError,
    Stopped,
    UnavailableDeviceError,
    UnreachableTargetError,
    UnsupportedModelError,
)
from bonsai_core.evaluation import mean_nll, perplexity_of
from bonsai_core.families import reachable_sparsity
from bonsai_core.file_ledger import FileLedger
from bonsai_core.gates import Units, gates_of
from bonsai_core.ledger import MemoryLedger, RoundRecord, Tensors
from bonsai_core.models import load, load_saved
from bonsai_core.pruner import PruneResult, prune
from bonsai_core.recipe import Decision, Situation, Trial, nothing
from bonsai_core.recipes.probes import CONFIDENCES
from bonsai_core.recipes.registry import FACTORIES
from bonsai_core.recipes.statistics_only import StatisticsOnly, equal_shares
from bonsai_core.refit import repaired
from bonsai_core.second_moments import gather
from bonsai_core.shelf import Shelf
from bonsai_core.surgery import cut
from bonsai_core.target import Target
from tests.core.conftest import contents
from tests.tiny_models import tiny_model, tiny_text

RequestFor = Callable[..., PruneRequest]
CPU = torch.device("cpu")
# Prices in the tiny Llama: an attention unit is two query heads and one key and one value head.
ATTENTION_UNIT = 32 * (16 + 8 + 8 + 16)
CHANNEL = 32 * 3
TOTAL = 2 * (2 * ATTENTION_UNIT + 48 * CHANNEL + 2 * 32) + 32


def run(request: PruneRequest, output: Path, **options: Any) -> PruneResult:
    options.setdefault("ledger", MemoryLedger())
    return prune(request, output, device="cpu", **options)


def kept(folder: Path) -> dict[str, list[int]]:
    return json.loads((folder / "bonsai.json").read_text())["kept"]


MASKS = 4
PAPER: dict[str, Any] = {"masks_per_round": MASKS}
BEST: dict[str, Any] = {"preset": "best", "utility": "kl", "improvements": 2}
STATISTICS: dict[str, Any] = {"preset": "statistics"}
EACH_PRESET = pytest.mark.parametrize(
    "preset", [PAPER, BEST, STATISTICS], ids=["paper", "best", "statistics"]
)


@EACH_PRESET
@pytest.mark.parametrize("layout", ["per_layer", "uniform"])
@pytest.mark.parametrize("groups", [2, 4], ids=["grouped", "ungrouped"])
def test_a_pruned_model_is_smaller_and_worth_what_the_run_says(
    saved_model: Callable[..., Path],
    request_for: RequestFor,
    tmp_path: Path,
    architecture: str,
    layout: str,
    groups: int,
    preset: dict[str, Any],
) -> None:
    request = request_for(saved_model(architecture, groups=groups), layout=layout, **preset)
    result = run(request, tmp_path / "out")
    assert result.sparsity >= 0.4
    assert result.folder == tmp_path / "out"
    saved = load_saved(ModelSource(source=str(tmp_path / "out")), CPU)
    again, tokenizer, family = saved.model, saved.tokenizer, saved.family
    assert sum(p.numel() for p in again.parameters()) == result.parameters
    removed = result.parameters_before - result.parameters
    before = result.non_embedding_parameters_before
    assert removed == before - result.non_embedding_parameters
    assert result.sparsity == pytest.approx(removed / before)
    tokens = calibration_batch(request.calibration, tokenizer, request.pruning.seed)
    nll = mean_nll(again, family, tokens[-request.trial_given_samples :])
    assert perplexity_of(nll) == pytest.approx(result.perplexity, rel=1e-5)
    if "nll" in result.utilities and not request.trial_own_samples:
        assert result.utilities["nll"] == pytest.approx(-nll, rel=1e-5)
    if "kl" in result.utilities:
        assert result.utilities_before["kl"] == pytest.approx(0, abs=1e-6)
        assert result.utilities["kl"] < 0


@EACH_PRESET
@pytest.mark.parametrize("align", [1, 5, 8])
@pytest.mark.parametrize("target", [0.08, 0.25, 0.5, 0.65])
def test_a_target_is_met_and_passed_by_less_than_one_unit(
    saved_model: Callable[..., Path],
    request_for: RequestFor,
    tmp_path: Path,
    align: int,
    target: float,
    preset: dict[str, Any],
) -> None:
    result = run(request_for(saved_model(), target, align=align, **preset), tmp_path / "out")
    unit = max(ATTENTION_UNIT, align * CHANNEL)
    removed = result.parameters_before - result.parameters
    assert result.non_embedding_parameters_before == TOTAL
    assert target * TOTAL <= removed < target * TOTAL + unit
    widths = {len(units) for name, units in kept(tmp_path / "out").items() if "mlp" in name}
    assert all(width % align == 0 and width > 0 for width in widths)


@EACH_PRESET
def test_a_wide_model_ends_on_multiples_that_nobody_asked_for(
    saved_model: Callable[..., Path],
    request_for: RequestFor,
    tmp_path: Path,
    preset: dict[str, Any],
) -> None:
    # Of 520 channels: 65 blocks of 8. A round leaves fewer than 32 of them, and 8 it remains.
    folder = saved_model(channels=520, hidden=24)
    wish = request_for(folder, 0.6, **preset, sparsity_per_round=0.3)
    assert run(wish, tmp_path / "out").sparsity >= 0.6
    widths = {len(units) for name, units in kept(tmp_path / "out").items() if "mlp" in name}
    assert all(width % 8 == 0 and width > 0 for width in widths)


@pytest.mark.parametrize(("field", "unit"), [("parameters", 1), ("memory_bytes", 2)])
def test_a_size_is_met_as_the_sparsity_is_that_comes_to_the_same(
    saved_model: Callable[..., Path],
    request_for: RequestFor,
    tmp_path: Path,
    field: str,
    unit: int,
) -> None:
    by_share = run(request_for(saved_model(), 0.3), tmp_path / "share")
    most = by_share.parameters_before - math.ceil(0.3 * TOTAL)
    target = Target.model_validate({field: unit * most})
    request = request_for(saved_model()).model_copy(update={"target": target})
    by_size = run(request, tmp_path / "size")
    assert most - max(ATTENTION_UNIT, CHANNEL) < by_size.parameters <= most
    assert kept(tmp_path / "size") == kept(tmp_path / "share")


@EACH_PRESET
@pytest.mark.parametrize("align", [1, 5, 8])
@pytest.mark.parametrize("target", [0.1, 0.5])
def test_a_uniform_result_has_one_width_for_all_layers(
    saved_model: Callable[..., Path],
    request_for: RequestFor,
    tmp_path: Path,
    align: int,
    target: float,
    preset: dict[str, Any],
) -> None:
    model = saved_model(groups=4, layers=3)
    request = request_for(model, target, align=align, layout="uniform", **preset)
    result = run(request, tmp_path / "out")
    config = AutoModelForCausalLM.from_pretrained(tmp_path / "out").config
    assert config.intermediate_size % align == 0
    assert config.num_attention_heads == config.num_key_value_heads >= 1
    removed = result.parameters_before - result.parameters
    goal = target * result.non_embedding_parameters_before
    assert goal <= removed < goal + 3 * max(32 * 32, align * CHANNEL)


@EACH_PRESET
@pytest.mark.parametrize("layout", ["per_layer", "uniform"])
@pytest.mark.parametrize("align", [1, 5, 16])
def test_all_that_is_said_to_be_reachable_is_reached(
    saved_model: Callable[..., Path],
    request_for: RequestFor,
    tmp_path: Path,
    architecture: str,
    layout: str,
    align: int,
    preset: dict[str, Any],
) -> None:
    folder = saved_model(architecture)
    reachable = reachable_sparsity(json.loads((folder / "config.json").read_text()), align)
    settings = {**preset, "layout": layout, "align": align, "sparsity_per_round": 0.5}
    result = run(request_for(folder, reachable, **settings), tmp_path / "out")
    assert result.sparsity == pytest.approx(reachable)
    sizes = {name: len(units) for name, units in kept(tmp_path / "out").items()}
    assert sizes == {"0.attention": 1, "0.mlp": align, "1.attention": 1, "1.mlp": align}


@EACH_PRESET
@pytest.mark.parametrize("layout", ["per_layer", "uniform"])
@pytest.mark.parametrize("target", [0.1, 0.45, None])
def test_devices_that_serve_it_together_get_equal_shares_of_every_layer(
    saved_model: Callable[..., Path],
    request_for: RequestFor,
    tmp_path: Path,
    layout: str,
    target: float | None,
    preset: dict[str, Any],
) -> None:
    folder = saved_model(groups=6, heads=12, hidden=24, head_dim=8, layers=3)
    config = json.loads((folder / "config.json").read_text())
    most = reachable_sparsity(config, 4, devices=3)
    wish = {**preset, "layout": layout, "align": 4, "tensor_parallel": 3}
    result = run(request_for(folder, target or most, **wish), tmp_path / "out")
    assert result.sparsity >= (target or most) - 1e-9
    sizes = {name: len(units) for name, units in kept(tmp_path / "out").items()}
    for name, size in sizes.items():
        block = 3 if "attention" in name else 12
        assert size > 0
        assert size % block == 0
        assert target or size == block


def test_more_devices_than_groups_are_refused(config_alone: Path, request_for: RequestFor) -> None:
    with pytest.raises(UnreachableTargetError, match=r"pruning\.tensor_parallel.*allowed: 1 to 2"):
        run(request_for(config_alone, 0.3, tensor_parallel=4), config_alone / "out")


@EACH_PRESET
@pytest.mark.parametrize("prior", list(Prior))
def test_every_prior_leads_to_the_target(
    saved_model: Callable[..., Path],
    request_for: RequestFor,
    tmp_path: Path,
    prior: Prior,
    preset: dict[str, Any],
) -> None:
    request = request_for(saved_model(), **preset, prior=prior)
    assert run(request, tmp_path / "out").sparsity >= 0.4


def test_statistics_alone_take_one_round_and_no_trial(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    result = run(request_for(saved_model(), **STATISTICS), tmp_path / "out")
    assert (result.rounds, result.masks_evaluated) == (1, 0)


@pytest.mark.parametrize("preset", [BEST, STATISTICS], ids=["best", "statistics"])
def test_the_result_is_the_dense_model_cut_and_repaired_whatever_was_tried_on_the_way(
    saved_model: Callable[..., Path],
    request_for: RequestFor,
    tmp_path: Path,
    architecture: str,
    preset: dict[str, Any],
) -> None:
    request = request_for(saved_model(architecture, layers=3), samples_per_mask=1, **preset)
    run(request, tmp_path / "out")
    told = json.loads((tmp_path / "out" / "bonsai.json").read_text())
    loaded = load(request.model, CPU)
    gates = gates_of(loaded.model, loaded.family, loaded.widths)
    # Statistics come from the sequences that trials do not see.
    batch = batch_of(loaded, request)
    tokens, heard = batch.listened, (batch.listened, None, batch.openings)
    layers = loaded.model.get_submodule(loaded.family.layers)
    backbone = loaded.model.get_submodule(loaded.family.backbone)
    moments = gather(Blocks(backbone, layers, *heard), gates, tmp_path / "moments")
    damping, gone = told["rounds"][-1]["damping"], {}
    for gate in gates:
        units = np.setdiff1d(np.arange(gate.units), told["kept"][gate.name])
        gone[gate.name] = gate.gone(units)
        weight = moments.weight(gate)
        new = repaired(weight, moments.of(gate), gone[gate.name], damping)
        gate.output.weight.data.copy_(new if len(units) else weight)
    if loaded.family.adds_outputs:
        blocks = [Blocks(backbone, layers, *heard) for _ in range(2)]
        correct(gates, gone, moments, Streams(*blocks, Shelf(tmp_path / "within")))
    for gate in gates:
        weight = gate.output.weight[:, ~gone[gate.name]]
        cut(gate, np.setdiff1d(np.arange(gate.units), told["kept"][gate.name]))
        gate.output.weight.data = weight
    norm = FinalNorm.of(loaded.model, loaded.family)
    assert norm is not None
    norm.scale(told["rounds"][-1]["notes"]["confidence"])
    again = load_saved(ModelSource(source=str(tmp_path / "out")), CPU).model
    with torch.inference_mode():
        assert torch.allclose(again(tokens).logits, loaded.model(tokens).logits, atol=1e-4)


def test_the_rounds_of_measured_damage_are_told(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    result = run(request_for(saved_model(), **BEST), tmp_path / "out")
    rounds = json.loads((tmp_path / "out" / "bonsai.json").read_text())["rounds"]
    assert [record["number"] for record in rounds] == [1, 2, 3, 4, 5]
    assert [record["cut"] for record in rounds] == [False, False, False, False, True]
    # Each attention gate loses one of its two units, each MLP a quarter and three fifths.
    assert rounds[0]["trials"] == 1 + 2 * (1 + 2)
    assert sum(record["trials"] for record in rounds) == result.masks_evaluated
    assert all(record["sparsity"] >= 0.4 for record in rounds)
    assert rounds[-1]["sparsity"] == pytest.approx(result.sparsity)
    assert rounds[-1]["removed"] == {
        name: sorted({*range(2 if "attention" in name else 48)} - {*units})
        for name, units in kept(tmp_path / "out").items()
        if len(units) < (2 if "attention" in name else 48)
    }


def test_perplexity_can_be_the_utility(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    utilities: dict[str, list[float]] = {}
    for utility in ("nll", "perplexity"):
        ledger = MemoryLedger()
        request = request_for(saved_model(), 0.1, utility=utility)
        run(request, tmp_path / utility, ledger=ledger)
        utilities[utility] = list(ledger.utilities(1).values())
    expected = [-perplexity_of(-value) for value in utilities["nll"]]
    assert utilities["perplexity"] == pytest.approx(expected)


def test_masks_can_be_tried_on_a_part_of_the_calibration_batch(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    ledgers = {samples: MemoryLedger() for samples in (1, 4, None)}
    for samples, ledger in ledgers.items():
        request = request_for(saved_model(), 0.1, samples_per_mask=samples)
        run(request, tmp_path / str(samples), ledger=ledger)
    assert ledgers[4].utilities(1) == ledgers[None].utilities(1) != ledgers[1].utilities(1)


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    for name, seed in (("first", 5), ("second", 5), ("other", 6)):
        run(request_for(saved_model(), seed=seed, prior="random"), tmp_path / name)
    assert contents(tmp_path / "first") == contents(tmp_path / "second")
    assert kept(tmp_path / "first") != kept(tmp_path / "other")


class StopAfter:
    """Says stop when it was asked so many times."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked > self.times


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[events.Event] = []

    def __call__(self, event: events.Event) -> None:
        self.events.append(event)

    @property
    def trials(self) -> list[tuple[int, int]]:
        heard = [event for event in self.events if isinstance(event, events.MaskEvaluated)]
        return [(event.round, event.trial) for event in heard]


ROUNDS = 2


@pytest.mark.parametrize(
    ("settings", "stride"), [(PAPER, 1), (BEST, 3)], ids=["random_masks", "measured_damage"]
)
def test_a_run_stopped_anywhere_goes_on_to_the_same_bytes(
    saved_model: Callable[..., Path],
    request_for: RequestFor,
    tmp_path: Path,
    settings: dict[str, Any],
    stride: int,
) -> None:
    request = request_for(saved_model(), **settings)
    never, whole = StopAfter(1_000_000), Heard()
    rounds = run(request, tmp_path / "undisturbed", stop=never, listener=whole).rounds
    expected = contents(tmp_path / "undisturbed")
    # Asked before each forward pass: of masks, of statistics, of the repair, and between rounds.
    assert never.asked > rounds + len(whole.trials)
    for times in range(0, never.asked, stride):
        ledger, output, heard = tmp_path / f"ledger-{times}", tmp_path / f"out-{times}", Heard()
        stop = StopAfter(times)
        with pytest.raises(Stopped):
            run(request, output, ledger=FileLedger(ledger), listener=heard, stop=stop)
        assert not output.exists()
        run(request, output, ledger=FileLedger(ledger), listener=heard)
        assert contents(output) == expected
        assert heard.trials == whole.trials


class Crash(Exception):  # noqa: N818 - stands for a process that ends
    """The process ended here."""


class CrashingLedger(FileLedger):
    """Ends the process right after the n-th write."""

    def __init__(self, folder: Path, writes: int) -> None:
        super().__init__(folder)
        self._left = writes

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Crash

    def open(self, fingerprint: str) -> None:
        super().open(fingerprint)
        self._count()

    def begin_round(self, number: int, prior: Tensors) -> None:
        super().begin_round(number, prior)
        self._count()

    def record(self, number: int, trial: int, utility: float, seconds: float) -> None:
        super().record(number, trial, utility, seconds)
        self._count()

    def finish_round(self, record: RoundRecord, weights: Tensors) -> None:
        super().finish_round(record, weights)
        self._count()


@pytest.mark.parametrize(
    "settings",
    [
        PAPER,
        {**PAPER, "layout": "uniform", "refit": False},
        BEST,
        {**BEST, "layout": "uniform", "samples_per_mask": 1},
        {**BEST, "refit": False},
        STATISTICS,
    ],
    ids=["paper", "uniform", "best", "best-uniform", "best-no-refit", "statistics"],
)
def test_a_crash_after_any_write_changes_no_byte(
    saved_model: Callable[..., Path],
    request_for: RequestFor,
    tmp_path: Path,
    settings: dict[str, Any],
) -> None:
    request, whole = request_for(saved_model(), **settings), Heard()
    rounds = run(request, tmp_path / "undisturbed", listener=whole).rounds
    expected = contents(tmp_path / "undisturbed")
    for writes in range(1, 1 + 2 * rounds + len(whole.trials) + 1):
        ledger, output = tmp_path / f"ledger-{writes}", tmp_path / f"out-{writes}"
        before, after = Heard(), Heard()
        with pytest.raises(Crash):
            run(request, output, ledger=CrashingLedger(ledger, writes), listener=before)
        run(request, output, ledger=FileLedger(ledger), listener=after)
        assert contents(output) == expected
        assert not set(before.trials) & set(after.trials)
        lines = [path.read_text().splitlines() for path in ledger.glob("*/trials.jsonl")]
        assert sum(len(of_round) for of_round in lines) == len(whole.trials)


class PlanAndCut:
    """A recipe whose rounds are in turn a plan and a cut, the target being met in two steps."""

    prior = Prior.ELIMINATION

    def __init__(self, _pruning: Pruning) -> None:
        pass

    def rounds(self, goal: int, total: int) -> int:  # noqa: ARG002
        return 4

    def propose(self, situation: Situation) -> Sequence[Trial]:
        return [Trial(situation.plan, 1e-2), Trial(self._weakest(situation), 1e-1)]

    def decide(
        self, situation: Situation, trials: Sequence[Trial], utilities: np.ndarray
    ) -> Decision:
        cut = situation.round % 2 == 0
        assert cut == any(len(units) for units in situation.plan)
        return Decision(trials[1].absent, cut=cut, damping=1e-2, notes={"first": utilities[0]})

    def _weakest(self, situation: Situation) -> list[Units]:
        steps = 2 if situation.round <= 2 else 1
        half = replace(situation, goal=math.ceil(situation.goal / steps))
        return equal_shares(half, Layout.PER_LAYER)


def test_a_recipe_may_plan_and_cut_in_turn_and_end_anywhere(
    saved_model: Callable[..., Path],
    request_for: RequestFor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(FACTORIES, "random_masks", PlanAndCut)
    request, whole = request_for(saved_model()), Heard()
    result = run(request, tmp_path / "undisturbed", listener=whole)
    assert (result.rounds, result.masks_evaluated) == (4, 8)
    assert 0.4 <= result.sparsity < 0.5
    rounds = json.loads((tmp_path / "undisturbed" / "bonsai.json").read_text())["rounds"]
    assert [record["cut"] for record in rounds] == [False, True, False, True]
    assert rounds[1]["removed"].keys() <= rounds[0]["removed"].keys()
    expected = contents(tmp_path / "undisturbed")
    for writes in range(1, 1 + 2 * 4 + 8 + 1):
        ledger, output = tmp_path / f"ledger-{writes}", tmp_path / f"out-{writes}"
        with pytest.raises(Crash):
            run(request, output, ledger=CrashingLedger(ledger, writes))
        run(request, output, ledger=FileLedger(ledger))
        assert contents(output) == expected


def test_a_recipe_that_removes_nothing_ends_the_run(
    saved_model: Callable[..., Path],
    request_for: RequestFor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing_at_all(situation: Situation, *_: object) -> Decision:
        return Decision(nothing(situation.shapes), cut=True)

    monkeypatch.setattr(StatisticsOnly, "decide", lambda _self, *asked: nothing_at_all(*asked))
    with pytest.raises(UnreachableTargetError, match="no further unit can go"):
        run(request_for(saved_model(), **STATISTICS), tmp_path / "out")


@pytest.mark.parametrize("times", [0, 10, 1_000_000])
def test_the_scratch_folder_is_empty_afterwards(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path, times: int
) -> None:
    scratch, used = tmp_path / "scratch", 0
    scratch.mkdir()
    until = StopAfter(times)
    request = request_for(saved_model(), **BEST, own_text=0.0)

    def stop() -> bool:
        nonlocal used
        used += len(list(scratch.rglob("*.safetensors")))
        return until()

    try:
        run(request, tmp_path / "out", stop=stop, scratch=scratch)
    except Stopped:
        assert times < 1_000_000
    assert (used > 0) == (times > 0)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("torn", ["record.json", "weights.safetensors", "half a line"])
def test_what_a_crash_tears_inside_a_write_is_done_again(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path, torn: str
) -> None:
    request = request_for(saved_model(), masks_per_round=MASKS)
    ledger = tmp_path / "ledger"
    run(request, tmp_path / "undisturbed", ledger=FileLedger(ledger))
    last = ledger / f"round-{ROUNDS:03d}"
    (last / "record.json").unlink()
    if torn != "record.json":
        (last / "weights.safetensors").unlink()
    if torn == "half a line":
        trials = last / "trials.jsonl"
        trials.write_text(trials.read_text()[:-20])
    heard = Heard()
    run(request, tmp_path / "out", ledger=FileLedger(ledger), listener=heard)
    assert heard.trials == ([(ROUNDS, MASKS - 1)] if torn == "half a line" else [])
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_a_finished_ledger_gives_the_result_again_without_trying_anything(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    ledger, request = MemoryLedger(), request_for(saved_model())
    first = run(request, tmp_path / "first", ledger=ledger)
    second = run(request, tmp_path / "second", ledger=ledger)
    assert (first.masks_evaluated, second.masks_evaluated) == (16, 0)
    assert first.perplexity == second.perplexity
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_trials_measured_elsewhere_are_taken_as_they_are(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    def listener(event: events.Event) -> None:
        if isinstance(event, events.RoundStarted):
            raise Crash

    request = request_for(saved_model(), 0.1)
    whole, shared = MemoryLedger(), FileLedger(tmp_path / "ledger")
    run(request, tmp_path / "first", ledger=whole)
    with pytest.raises(Crash):
        run(request, tmp_path / "second", ledger=shared, listener=listener)
    for trial in (7, 2, 5):  # in any order, as other workers would
        shared.record(1, trial, whole.utilities(1)[trial], 0.1)
    heard = Heard()
    run(request, tmp_path / "second", ledger=shared, listener=heard)
    assert [trial for _, trial in heard.trials] == [0, 1, 3, 4, 6]
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_a_ledger_of_other_inputs_is_refused(request_for: RequestFor, tmp_path: Path) -> None:
    model, words = tiny_model(tmp_path / "model"), tiny_text(tmp_path / "text.txt")

    def build(sparsity: float = 0.3, **pruning: Any) -> PruneRequest:
        request = request_for(model, sparsity, **pruning)
        changed = request.calibration.model_copy(update={"source": str(words)})
        return request.model_copy(update={"calibration": changed})

    def attempt(request: PruneRequest) -> None:
        with pytest.raises(InputsChangedError, match="start anew"):
            run(request, tmp_path / "second", ledger=FileLedger(tmp_path / "ledger"))

    run(build(), tmp_path / "first", ledger=FileLedger(tmp_path / "ledger"))
    attempt(build(0.31))
    attempt(build(seed=1))
    attempt(build(refit=False))
    attempt(build(damping=0.5))
    attempt(build(recipe="statistics"))
    attempt(build(utility="perplexity"))
    tiny_text(words, seed=1)
    attempt(build())
    tiny_text(words, seed=0)
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"] += 1e-3
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    attempt(build())
    tiny_model(model)
    run(build(), tmp_path / "second", ledger=FileLedger(tmp_path / "ledger"))


def test_a_ledger_of_other_questions_is_refused(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    questions, ledger = tmp_path / "questions.jsonl", MemoryLedger()
    line = '{"context": "the", "choices": [" tree", " moon"], "answer": 0}\n'
    utility = [{"name": "kl"}, {"name": "choice", "settings": {"path": str(questions)}}]
    request = request_for(saved_model(), 0.1, utility=utility)
    questions.write_text(line)
    result = run(request, tmp_path / "first", ledger=ledger)
    assert list(result.utilities_before) == list(result.utilities) == ["kl", "choice"]
    questions.write_text(line.replace("moon", "mouse"))
    with pytest.raises(InputsChangedError, match="start anew"):
        run(request, tmp_path / "second", ledger=ledger)


def test_the_repair_changes_kept_columns_and_the_last_norm_and_no_decision(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    # One round, so that both decide on the same model; test_refit.py shows that it helps.
    for name, refit in (("plain", False), ("fitted", True)):
        request = request_for(saved_model(), 0.3, refit=refit, sparsity_per_round=0.3)
        run(request, tmp_path / name)
    assert kept(tmp_path / "plain") == kept(tmp_path / "fitted")
    plain = load_file(tmp_path / "plain" / "model.safetensors")
    fitted = load_file(tmp_path / "fitted" / "model.safetensors")
    changed = {name for name, weight in plain.items() if not torch.equal(weight, fitted[name])}
    assert changed
    changed -= {"model.norm.weight"}
    assert changed
    assert all(name.endswith(("o_proj.weight", "down_proj.weight")) for name in changed)


@pytest.mark.parametrize("preset", [BEST, STATISTICS], ids=["best", "statistics"])
def test_no_other_factor_in_the_last_norm_makes_the_result_worth_more(
    saved_model: Callable[..., Path],
    request_for: RequestFor,
    tmp_path: Path,
    architecture: str,
    preset: dict[str, Any],
) -> None:
    request = request_for(saved_model(architecture), **preset | {"utility": "nll"})
    result = run(request, tmp_path / "out")
    told = json.loads((tmp_path / "out" / "bonsai.json").read_text())
    chosen = told["rounds"][-1]["notes"]["confidence"]
    saved = load_saved(ModelSource(source=str(tmp_path / "out")), CPU)
    tokens = batch_of(load(request.model, CPU), request).tried
    norm = FinalNorm.of(saved.model, saved.family)
    assert norm is not None
    worth = {}
    for factor in CONFIDENCES:
        norm.scale(factor / chosen)
        worth[factor] = -mean_nll(saved.model, saved.family, tokens)
    assert worth[chosen] == pytest.approx(result.utilities["nll"], rel=1e-5)
    assert worth[chosen] >= max(worth.values()) - 1e-5


def test_the_listener_hears_the_run_in_order(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    heard = Heard()
    result = run(request_for(saved_model(), 0.1), tmp_path / "out", listener=heard)
    loaded, begun, *trials, finished, saving, saved = heard.events
    assert isinstance(loaded, events.ModelLoaded)
    assert (loaded.architecture, loaded.device, loaded.dtype) == (
        "LlamaForCausalLM",
        "cpu",
        "float32",
    )
    assert (loaded.perplexity, loaded.rounds) == (result.perplexity_before, 1)
    assert isinstance(begun, events.RoundStarted)
    assert (begun.round, begun.masks, begun.masks_in_ledger, begun.sparsity) == (1, 8, 0, 0)
    assert heard.trials == [(1, trial) for trial in range(8)]
    assert len(trials) == 8
    assert isinstance(finished, events.RoundFinished)
    assert (finished.sparsity, finished.perplexity) == (result.sparsity, result.perplexity)
    assert saving == events.SaveStarted(str(tmp_path / "out"))
    assert saved == events.ModelSaved(str(tmp_path / "out"), result.parameters, result.sparsity)


def test_a_run_prints_nothing_and_leaves_nothing_behind(
    saved_model: Callable[..., Path],
    request_for: RequestFor,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    request = request_for(saved_model())
    capfd.readouterr()
    states = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    settings = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
    run(request, tmp_path / "out")
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]
    after = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
    assert after == settings
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_run_lets_go_of_its_model(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    def models() -> int:
        gc.collect()
        return sum(issubclass(type(thing), PreTrainedModel) for thing in gc.get_objects())

    request, before = request_for(saved_model()), models()
    run(request, tmp_path / "out")
    assert models() == before


def test_a_relative_output_is_below_the_current_folder(
    saved_model: Callable[..., Path],
    request_for: RequestFor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(request_for(saved_model(), 0.1), Path("some/out"))
    assert result.folder == tmp_path / "some" / "out"
    assert (tmp_path / "some" / "out" / "config.json").is_file()


def test_a_second_run_into_the_same_folder_is_refused_at_once(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    request, heard = request_for(saved_model(), 0.1), Heard()
    run(request, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(PruneError, match="something is there already"):
        run(request, tmp_path / "out", listener=heard)
    assert heard.events == []
    assert contents(tmp_path / "out") == before


@pytest.fixture
def config_alone(saved_model: Callable[..., Path], tmp_path: Path) -> Path:
    """A model folder without weights: whoever tries to load them fails otherwise."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text((saved_model() / "config.json").read_text())
    return folder


def test_an_unreachable_target_is_refused_before_the_weights_are_read(
    config_alone: Path, request_for: RequestFor, tmp_path: Path
) -> None:
    with pytest.raises(UnreachableTargetError) as caught:
        run(request_for(config_alone, 0.98), tmp_path / "out")
    assert (caught.value.field, caught.value.value) == ("target.sparsity", 0.98)
    assert "up to 0.7793" in caught.value.allowed
    assert caught.value.cure
    with pytest.raises(UnreachableTargetError, match=r"pruning\.align.*allowed: 1 to 48"):
        run(request_for(config_alone, 0.3, align=64), tmp_path / "out")


def test_a_target_too_small_for_the_alignment_is_refused(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    with pytest.raises(UnreachableTargetError, match=r"48 channels.*multiples.*\(25\)") as caught:
        run(request_for(saved_model(), 0.1, align=25), tmp_path / "out")
    least = float(caught.value.allowed.removeprefix("from ").split(",")[0])
    assert run(request_for(saved_model(), least, align=25), tmp_path / "out").sparsity >= least


def test_another_architecture_is_refused_by_name(
    config_alone: Path, request_for: RequestFor, tmp_path: Path
) -> None:
    config = json.loads((config_alone / "config.json").read_text())
    changed = config | {"architectures": ["GemmaForCausalLM"], "model_type": "gemma"}
    (config_alone / "config.json").write_text(json.dumps(changed))
    with pytest.raises(UnsupportedModelError, match="GemmaForCausalLM"):
        run(request_for(config_alone), tmp_path / "out")


def test_a_result_with_widths_per_layer_is_not_pruned_again(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    run(request_for(saved_model()), tmp_path / "first")
    assert "per_layer_config" in (tmp_path / "first" / "config.json").read_text()
    with pytest.raises(UnsupportedModelError, match="pruned per layer already"):
        run(request_for(tmp_path / "first"), tmp_path / "second")


def test_a_uniform_result_can_be_pruned_again(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    run(request_for(saved_model(), 0.2, layout="uniform"), tmp_path / "first")
    assert run(request_for(tmp_path / "first", 0.2), tmp_path / "second").sparsity >= 0.2


def test_weights_that_are_not_numbers_end_the_run_by_name(
    request_for: RequestFor, tmp_path: Path
) -> None:
    model = tiny_model(tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    weights["model.layers.1.self_attn.v_proj.weight"][0, 0] = torch.inf
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BrokenNumericsError, match=r"model\.dtype"):
        run(request_for(model), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_text_and_a_missing_device_are_refused(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    request = request_for(saved_model())
    nowhere = request.calibration.model_copy(update={"source": str(tmp_path / "none.txt")})
    with pytest.raises(InvalidCalibrationError, match="there is no such file"):
        run(request.model_copy(update={"calibration": nowhere}), tmp_path / "out")
    with pytest.raises(UnavailableDeviceError):
        prune(request, tmp_path / "out", ledger=MemoryLedger(), device="cuda:99")


def test_what_a_listener_raises_ends_the_run_and_a_later_one_goes_on(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    def listener(event: events.Event) -> None:
        if isinstance(event, events.MaskEvaluated) and event.trial == 3:
            raise Crash

    request, ledger = request_for(saved_model(), 0.1), MemoryLedger()
    with pytest.raises(Crash):
        run(request, tmp_path / "out", ledger=ledger, listener=listener)
    assert sorted(ledger.utilities(1)) == [0, 1, 2, 3]
    assert run(request, tmp_path / "out", ledger=ledger).masks_evaluated == 4


def test_half_precision_models_are_pruned_in_their_format(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    request = request_for(saved_model(tied=True))
    half = request.model.model_copy(update={"dtype": DType.BFLOAT16})
    run(request.model_copy(update={"model": half}), tmp_path / "out")
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118


class Small:
    """A device that has room for so many tokens at once; heard by every forward pass."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.refused = 0

    def __call__(self, module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, torch.nn.Embedding) and inputs[0].numel() > self.tokens:
            self.refused += 1
            raise torch.OutOfMemoryError("Out of memory. Tried to allocate 20.00 MiB. And so on.")


@pytest.fixture
def small() -> Iterator[Callable[[int], Small]]:
    undo = []

    def make(tokens: int) -> Small:
        device = Small(tokens)
        hook = register_module_forward_pre_hook(device)
        undo.append(hook)
        return device

    yield make
    for hook in undo:
        hook.remove()


def test_a_device_out_of_memory_is_given_less_at_once(
    saved_model: Callable[..., Path],
    request_for: RequestFor,
    tmp_path: Path,
    small: Callable[[int], Small],
) -> None:
    request = request_for(saved_model(), 0.2, **BEST)
    length = request.calibration.sequence_length
    run(request, tmp_path / "roomy")
    device, heard, ledger = small(2 * length), Heard(), MemoryLedger()
    result = run(request, tmp_path / "out", ledger=ledger, listener=heard)
    assert device.refused
    told = [event for event in heard.events if isinstance(event, events.MemoryExhausted)]
    assert told[-1].sequences <= 2
    assert "20.00 MiB" in told[-1].wanted
    # What had been measured before the shortage was not measured again.
    assert len(set(heard.trials)) == len(heard.trials)
    assert result.masks_evaluated <= len(heard.trials)
    assert kept(tmp_path / "out") == kept(tmp_path / "roomy")


def test_a_device_without_room_for_one_sequence_is_told_apart(
    saved_model: Callable[..., Path],
    request_for: RequestFor,
    tmp_path: Path,
    small: Callable[[int], Small],
) -> None:
    request = request_for(saved_model(), 0.2, **BEST)
    small(request.calibration.sequence_length - 1)
    with pytest.raises(InsufficientMemoryError, match=r"one sequence at a time .*20\.00 MiB.*free"):
        run(request, tmp_path / "out")
    assert not (tmp_path / "out").exists()
