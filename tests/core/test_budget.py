"""What a prune will spend is what it spends: trials are counted, tokens metered in real runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.spending import Meter
from bonsai_core.budget import Budget, budget
from bonsai_core.config import PruneRequest
from bonsai_core.ledger import MemoryLedger
from bonsai_core.models import dense_config, load
from bonsai_core.pruner import PruneResult, prune
from bonsai_core.target import Target

CPU = torch.device("cpu")
PRESETS: list[dict[str, Any]] = [
    {"preset": "best", "utility": "kl"},
    {"preset": "best", "utility": "nll", "improvements": 0},
    {"preset": "best", "utility": "nll", "refit": False},
    {"preset": "best", "utility": "nll", "align": 8, "prior": "wanda"},
    {"preset": "paper", "refit": False},
    {"preset": "paper", "prior": "elimination"},
    {"preset": "statistics"},
]


def spend(request: PruneRequest, folder: Path) -> tuple[Budget, PruneResult, float]:
    """What a request's budget is, what the run gave, and the forward tokens it took."""
    config = dense_config(request.model)
    told = budget(request, config)
    assert told is not None
    layers = load(request.model, CPU).model.model.layers
    with Meter(layers, CPU) as meter:
        result = prune(request, folder / "out", ledger=MemoryLedger(), device="cpu")
        return told, result, meter.spent().forward_tokens


@pytest.mark.parametrize("pruning", PRESETS, ids=str)
def test_a_run_makes_the_trials_and_takes_the_tokens_that_were_told(
    saved_model: Callable[..., Path],
    request_for: Callable[..., PruneRequest],
    tmp_path: Path,
    pruning: dict[str, Any],
) -> None:
    request = request_for(saved_model(layers=6), **{"refit": True, **pruning})
    told, result, tokens = spend(request, tmp_path)
    assert (told.rounds, told.trials) == (result.rounds, result.masks_evaluated)
    assert told.trials_at_least <= told.trials
    assert told.trial_tokens <= told.forward_tokens
    assert told.forward_tokens == pytest.approx(tokens, rel=0.05)


@pytest.mark.parametrize(
    "pruning",
    [{"preset": "best"}, {"preset": "best", "layout": "uniform"}, {"sparsity_per_round": 0.03}],
    ids=str,
)
@pytest.mark.parametrize("groups", [1, 4])
def test_what_depends_on_the_plan_is_told_as_a_range(
    saved_model: Callable[..., Path],
    request_for: Callable[..., PruneRequest],
    tmp_path: Path,
    pruning: dict[str, Any],
    groups: int,
) -> None:
    told, result, tokens = spend(request_for(saved_model(groups=groups), **pruning), tmp_path)
    assert told.trials_at_least <= result.masks_evaluated <= told.trials
    assert result.rounds <= told.rounds
    assert tokens <= 1.05 * told.forward_tokens


@pytest.mark.parametrize("experts", ["channels", "whole"])
def test_the_experts_of_a_layer_are_tried_as_one(
    saved_model: Callable[..., Path],
    request_for: Callable[..., PruneRequest],
    tmp_path: Path,
    experts: str,
) -> None:
    model = saved_model("MixtralForCausalLM")
    request = request_for(model, 0.3, preset="best", experts=experts)
    told, result, _ = spend(request, tmp_path)
    assert told.trials_at_least <= result.masks_evaluated <= told.trials


@pytest.mark.parametrize("layout", ["per_layer", "uniform"])
def test_of_several_targets_what_serves_all_is_counted_once(
    saved_model: Callable[..., Path],
    request_for: Callable[..., PruneRequest],
    tmp_path: Path,
    layout: str,
) -> None:
    request = request_for(saved_model(layers=6), preset="best", utility="kl", layout=layout)
    family = request.model_copy(update={"target": Target(sparsity=0.4, stops=(0.2, 0.3))})
    told, result, tokens = spend(family, tmp_path)
    sizes = (*result.on_the_way, result)
    assert sum(size.rounds for size in sizes) == told.rounds
    assert told.trials_at_least <= sum(size.masks_evaluated for size in sizes) <= told.trials
    assert told.forward_tokens == pytest.approx(tokens, rel=0.05)


def test_a_plug_in_keeps_its_own_counsel(
    saved_model: Callable[..., Path], request_for: Callable[..., PruneRequest]
) -> None:
    request = request_for(saved_model(), recipe="somebody_elses")
    assert budget(request, dense_config(request.model)) is None


def test_the_defaults_cost_what_the_documents_say() -> None:
    """docs/add-a-recipe.md: half of a model of 30 layers, in millions of forward tokens."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "num_hidden_layers": 30,
        "vocab_size": 49152,
    }
    for preset, millions in (("best", 0.37), ("statistics", 0.18), ("paper", 66.0)):
        request = PruneRequest.model_validate(
            {
                "model": {"source": "/models/small"},
                "calibration": {"source": "/texts/wiki.txt"},
                "target": {"sparsity": 0.5},
                "pruning": {"preset": preset},
            }
        )
        told = budget(request, config)
        assert told is not None
        assert told.forward_tokens / 1e6 == pytest.approx(millions, rel=0.03)
