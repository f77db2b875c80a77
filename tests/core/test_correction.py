"""What stays makes up for what was lost before it: least squares from layer to layer."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bonsai_core import portions
from bonsai_core.blocks import OPENING_WEIGHT, Blocks
from bonsai_core.config import ModelSource
from bonsai_core.correction import RIDGES, Streams, _agreed, _Half, correct
from bonsai_core.errors import Stopped
from bonsai_core.events import GoOn, regardless
from bonsai_core.gates import Gate, gates_of
from bonsai_core.models import LoadedModel, load
from bonsai_core.refit import repaired
from bonsai_core.second_moments import SecondMoments, gather, symmetric
from bonsai_core.shelf import Shelf

SEQUENCES = torch.randint(0, 256, (40, 40), generator=torch.Generator().manual_seed(0))
OPENINGS = torch.randint(0, 256, (500,), generator=torch.Generator().manual_seed(1))
DAMPING = 1e-3


@pytest.fixture(autouse=True)
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(portions.TOKENS, "cpu", 400)


class Case:
    """A model that lacks some units of some gates, repaired gate by gate without correction."""

    def __init__(
        self,
        folder: Path,
        scratch: Path,
        lacking: Callable[[Gate], bool],
        openings: Tensor | None = None,
    ) -> None:
        self.openings = openings
        self.loaded: LoadedModel = load(ModelSource(source=str(folder)), torch.device("cpu"))
        self.gates = gates_of(self.loaded.model, self.loaded.family, self.loaded.widths)
        self.scratch = scratch
        self.dense = copy.deepcopy(self.loaded.model)
        self.moments: SecondMoments = gather(self.blocks("start"), self.gates, scratch / "moments")
        self.gone = {
            gate.name: gate.gone(np.arange(gate.units // 2 if lacking(gate) else 0))
            for gate in self.gates
        }
        for gate in self.gates:
            if self.gone[gate.name].any():
                new = repaired(
                    self.moments.weight(gate),
                    self.moments.of(gate),
                    self.gone[gate.name],
                    DAMPING,
                )
                gate.output.weight.data.copy_(new)
        self.repaired = [gate.output.weight.clone() for gate in self.gates]

    @property
    def backbone(self) -> nn.Module:
        backbone: nn.Module = self.loaded.model.get_submodule(self.loaded.family.backbone)
        return backbone

    def blocks(self, name: str) -> Blocks:
        layers: Any = self.loaded.model.get_submodule(self.loaded.family.layers)
        return Blocks(self.backbone, layers, SEQUENCES, Shelf(self.scratch / name), self.openings)

    def correct(self, factor: float = 1.0, go_on: GoOn = regardless) -> None:
        streams = Streams(
            self.blocks("before"), self.blocks("after"), Shelf(self.scratch / "within"), factor
        )
        correct(self.gates, self.gone, self.moments, streams, go_on)

    @torch.inference_mode()
    def error(self) -> float:
        """Mean squared error of the states before the last norm, on the calibration text."""
        last = self.loaded.family.layers
        found = []
        for model in (self.dense, self.loaded.model):
            heard: list[Tensor] = []
            handle = model.get_submodule(last)[-1].register_forward_hook(
                lambda _m, _i, out, heard=heard: heard.append(
                    out[0] if isinstance(out, tuple) else out
                )
            )
            model.get_submodule(self.loaded.family.backbone)(input_ids=SEQUENCES, use_cache=False)
            handle.remove()
            found.append(heard[0])
        return (found[0] - found[1]).square().mean().item()


def everywhere(gate: Gate) -> bool:
    return True


@pytest.fixture
def tiny(saved_model: Callable[..., Path]) -> Path:
    return saved_model(layers=3)


def test_where_nothing_goes_nothing_changes(tiny: Path, tmp_path: Path) -> None:
    case = Case(tiny, tmp_path, lambda _: False)
    case.correct()
    pairs = zip(case.gates, case.repaired, strict=True)
    assert all(torch.equal(gate.output.weight, weight) for gate, weight in pairs)


@pytest.mark.parametrize("layer", [0, 1])
def test_the_first_gate_has_nothing_to_make_up_for(tiny: Path, tmp_path: Path, layer: int) -> None:
    case = Case(tiny, tmp_path, lambda gate: gate.layer >= layer)
    case.correct()
    for gate, weight in zip(case.gates, case.repaired, strict=True):
        same = torch.allclose(gate.output.weight, weight, rtol=1e-3, atol=1e-4)
        assert same == (gate.layer < layer or gate.name == f"{layer}.attention"), gate.name


def test_columns_that_go_stay_zero_and_gates_that_lack_none_are_corrected_too(
    tiny: Path, tmp_path: Path
) -> None:
    case = Case(tiny, tmp_path, lambda gate: gate.name in ("0.mlp", "2.attention"))
    case.correct()
    for gate, weight in zip(case.gates, case.repaired, strict=True):
        assert not gate.output.weight[:, case.gone[gate.name]].any()
        # The first that lacks columns has nothing to make up for.
        assert torch.equal(gate.output.weight, weight) == (gate.layer == 0)


@torch.inference_mode()
def states_at(model: Any, path: str, openings: Tensor | None) -> Tensor:
    """What enters a module, over all sequences and what begins others; [tokens, C] float64."""
    heard: list[Tensor] = []
    handle = model.get_submodule(path).register_forward_pre_hook(
        lambda _m, inputs: heard.append(inputs[0])
    )
    model(SEQUENCES)
    if openings is not None:
        model(openings[:, None])
    handle.remove()
    return torch.cat([states.flatten(0, -2) for states in heard]).double()


@pytest.mark.parametrize(
    ("gate", "output", "stream"),
    [
        ("1.attention", "self_attn.o_proj", "input_layernorm"),
        ("1.mlp", "mlp.down_proj", "post_attention_layernorm"),
    ],
)
@pytest.mark.parametrize("openings", [None, OPENINGS], ids=["sequences", "with openings"])
def test_a_gate_is_the_least_squares_answer_for_what_its_stream_lacks(
    tiny: Path, tmp_path: Path, gate: str, output: str, stream: str, openings: Tensor | None
) -> None:
    case = Case(tiny, tmp_path, everywhere, openings)
    case.correct()
    layer, dense, now = "model.layers.1.", case.dense, case.loaded.model
    lack = states_at(dense, layer + stream, openings) - states_at(now, layer + stream, openings)
    old = dense.get_submodule(layer + output).weight.double()
    kept = ~case.gone[gate]
    before = case.repaired[[g.name for g in case.gates].index(gate)][:, kept].double()
    # All openings together weigh as much as so many tokens of each sequence.
    weights = torch.ones(len(lack), 1, dtype=torch.float64)
    weights[SEQUENCES.numel() :] = OPENING_WEIGHT * len(SEQUENCES) / len(OPENINGS)
    inputs = weights.sqrt() * states_at(now, layer + output, openings)[:, kept]
    target = states_at(dense, layer + output, openings) @ old.T + lack
    missing = weights.sqrt() * target - inputs @ before.T
    lengths = torch.tensor(
        [SEQUENCES.shape[1]] * len(SEQUENCES) + [1] * 500 * (openings is not None)
    )
    of_sequence = torch.arange(len(lengths)).repeat_interleave(lengths)
    new = case.loaded.model.get_submodule(layer + output).weight[:, kept].double()
    answer = before + agreed(inputs, missing, of_sequence % 2 == 0)
    assert torch.allclose(new, answer, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(new, before, rtol=1e-3, atol=1e-4)


def agreed(inputs: Tensor, missing: Tensor, first: Tensor) -> Tensor:
    """What two halves of the tokens agree on, of the least squares for what is missing."""

    def fitted(mine: Tensor, ridge: float) -> Tensor:
        x, y = inputs[mine], missing[mine]
        strength = (ridge * x.square().sum(0).mean()).sqrt()
        rows = torch.cat([x, strength * torch.eye(x.shape[1], dtype=x.dtype)])
        zeros = torch.zeros(x.shape[1], y.shape[1], dtype=x.dtype)
        return torch.linalg.lstsq(rows, torch.cat([y, zeros])).solution

    found = []
    for ridge in RIDGES:
        told = [(fitted(mine, ridge), ~mine) for mine in (first, ~first)]
        here = sum(((inputs[o] @ fit) * missing[o]).sum().item() for fit, o in told)
        power = sum((inputs[o] @ fit).square().sum().item() for fit, o in told)
        share = min(1.0, max(0.0, 2 * here / (here + power)))
        found.append((share * here, share, ridge))
    _, share, ridge = max(found)
    return share * fitted(torch.ones_like(first), ridge).T


def test_what_a_few_tokens_say_by_chance_is_not_believed() -> None:
    random = torch.Generator().manual_seed(0)
    inputs, noise = (torch.randn(2, 60, 20, generator=random) for _ in range(2))
    signal = torch.randn(20, 20, generator=random)
    for there in (0.0, 0.1, 1.0):
        halves = [_Half(20, 20, torch.device("cpu")) for _ in range(2)]
        for half, x, e in zip(halves, inputs, noise, strict=True):
            half.add(x, there * x @ signal.T + e, 1.0)
            half.squares = symmetric(half.squares)
        found = _agreed((halves[0], halves[1]))
        if not there:
            assert found.square().sum() < 0.1 * 20 * 20 / 120
        else:
            wrong = (found - there * signal).square().sum()
            assert wrong < (there * signal).square().sum()
            assert wrong < 1.05 * 20 * 20 / 100  # plain least squares: noise / (tokens - columns)


@pytest.mark.parametrize(
    ("architecture", "settings", "factor"),
    [
        ("LlamaForCausalLM", {"attention_bias": True, "mlp_bias": True}, 1.0),
        ("Phi3ForCausalLM", {}, 1.0),
        ("GraniteForCausalLM", {}, 0.8),
        ("GPT2LMHeadModel", {}, 1.0),
        ("OPTForCausalLM", {}, 1.0),
        ("GPTNeoXForCausalLM", {}, 1.0),
        ("FalconForCausalLM", {}, 1.0),
        ("BloomForCausalLM", {}, 1.0),
        ("StableLmForCausalLM", {"use_parallel_residual": True}, 1.0),
        ("MixtralForCausalLM", {}, 1.0),
    ],
)
def test_the_stream_comes_closer_to_the_dense_one(
    saved_model: Callable[..., Path],
    tmp_path: Path,
    architecture: str,
    settings: dict[str, Any],
    factor: float,
) -> None:
    case = Case(saved_model(architecture, layers=3, **settings), tmp_path, everywhere)
    config = case.loaded.model.config.to_dict()
    assert config.get(case.loaded.family.outputs_factor, 1.0) == factor
    before = case.error()
    case.correct(factor)
    assert case.error() < 0.95 * before


def test_a_run_can_be_stopped_between_two_passes(tiny: Path, tmp_path: Path) -> None:
    case = Case(tiny, tmp_path, everywhere)
    asked = 0

    def go_on() -> None:
        nonlocal asked
        asked += 1
        if asked == 20:
            raise Stopped

    with pytest.raises(Stopped):
        case.correct(go_on=go_on)
    logits = case.loaded.model(SEQUENCES[:1]).logits  # no hook is left behind
    assert torch.isfinite(logits).all()
