"""On a GPU, where there is one: the same promises, and those of a device with its own memory.

Nothing of the service is needed: `pytest --noconftest -p tests.core.conftest` and this file.
"""

import functools
import itertools
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from bonsai_core import events
from bonsai_core.config import DType, ModelSource, PruneRequest
from bonsai_core.errors import Stopped
from bonsai_core.evaluation import mean_nll, perplexity_of
from bonsai_core.ledger import MemoryLedger
from bonsai_core.models import load_saved
from bonsai_core.pruner import PruneResult, prune
from bonsai_core.verification import verify
from tests.core.conftest import contents
from tests.tiny_models import ARCHITECTURES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"masks_per_round": 4},
    "best": {"preset": "best", "utility": "kl", "improvements": 2},
    "uniform": {"preset": "best", "utility": "kl", "layout": "uniform"},
    "statistics": {"preset": "statistics"},
}
EACH_PRESET = pytest.mark.parametrize("preset", PRESETS)
RequestFor = Callable[..., PruneRequest]


def run(request: PruneRequest, output: Path, **options: Any) -> PruneResult:
    options = {"ledger": MemoryLedger(), "device": "cuda"} | options
    return prune(request, output, **options)


@EACH_PRESET
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_every_family_is_pruned_there_and_is_what_the_run_says_elsewhere_too(
    saved_model: Callable[..., Path],
    request_for: RequestFor,
    tmp_path: Path,
    family: str,
    preset: str,
) -> None:
    request = request_for(saved_model(family), 0.25, **PRESETS[preset])
    result = run(request, tmp_path / "out")
    assert result.sparsity >= 0.25
    verify(tmp_path / "out", device="cuda")
    tokens = (torch.arange(8 * 32, dtype=torch.int64).reshape(8, 32) * 7) % 250
    source = ModelSource(source=str(tmp_path / "out"))
    found = []
    for device in (CUDA, CPU):
        saved = load_saved(source, device)
        found.append(perplexity_of(mean_nll(saved.model, saved.family, tokens.to(device))))
    assert found[0] == pytest.approx(found[1], rel=1e-3)


@EACH_PRESET
def test_weights_that_come_and_go_give_the_same_bytes_and_so_does_a_run_that_was_stopped(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path, preset: str
) -> None:
    request = request_for(saved_model(layers=4), **PRESETS[preset])
    whole = run(request, tmp_path / "whole")
    streamed = run(request, tmp_path / "streamed", device_memory=whole.device_weights * 2 // 3)
    assert streamed.device_weights < whole.device_weights
    assert contents(tmp_path / "streamed") == contents(tmp_path / "whole")
    ledger = MemoryLedger()
    for passes in (3, 10, 30, 100):
        with suppress(Stopped):
            numbers = itertools.count()
            stop = functools.partial(lambda numbers, most: next(numbers) >= most, numbers, passes)
            run(request, tmp_path / "stopped", ledger=ledger, stop=stop)
            break
    else:
        run(request, tmp_path / "stopped", ledger=ledger)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


@pytest.mark.parametrize("dtype", [DType.BFLOAT16, DType.FLOAT16])
def test_half_precision_is_pruned_there(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path, dtype: DType
) -> None:
    request = request_for(saved_model(), **PRESETS["best"])
    model = request.model.model_copy(update={"dtype": dtype})
    result = run(request.model_copy(update={"model": model}), tmp_path / "out")
    assert result.sparsity >= 0.4
    saved = load_saved(ModelSource(source=str(tmp_path / "out")), CUDA)
    assert next(saved.model.parameters()).dtype == getattr(torch, dtype.value)


def test_a_device_that_runs_out_of_memory_is_given_less_at_once(
    saved_model: Callable[..., Path], request_for: RequestFor, tmp_path: Path
) -> None:
    """A share of the GPU is all that torch may take here, and it is less than the run likes."""
    request = request_for(saved_model(channels=4096), **PRESETS["statistics"])
    calibration = request.calibration.model_copy(update={"samples": 256, "sequence_length": 64})
    request = request.model_copy(update={"calibration": calibration})
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run(request, tmp_path / "roomy")
    liked = torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    heard: list[events.Event] = []
    torch.cuda.set_per_process_memory_fraction(
        0.8 * liked / torch.cuda.get_device_properties(0).total_memory
    )
    try:
        run(request, tmp_path / "tight", listener=heard.append)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert any(isinstance(event, events.MemoryExhausted) for event in heard)
