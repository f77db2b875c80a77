"""What a prune will take of a disk is what lies there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bonsai_core.budget import budget
from bonsai_core.config import PruneRequest
from bonsai_core.disk import disk
from bonsai_core.file_ledger import FileLedger
from bonsai_core.formats.names import Format
from bonsai_core.models import dense_config
from bonsai_core.pruner import prune


def bytes_in(folder: Path, ending: str) -> int:
    return sum(path.stat().st_size for path in folder.rglob(f"*{ending}") if path.is_file())


@pytest.mark.parametrize(
    "pruning", [{"preset": "best"}, {"preset": "paper"}, {"preset": "statistics"}], ids=str
)
def test_a_run_takes_what_was_told(
    saved_model: Callable[..., Path],
    request_for: Callable[..., PruneRequest],
    tmp_path: Path,
    pruning: dict[str, Any],
) -> None:
    # Large enough that the files' own headers are small beside what they hold.
    model = saved_model(hidden=96, channels=256, head_dim=24, layers=3)
    request = request_for(model, **pruning)
    config = dense_config(request.model)
    spent = budget(request, config)
    assert spent is not None
    told = disk(request, config, spent.rounds)
    scratch, most = tmp_path / "scratch", 0
    scratch.mkdir()

    def watching() -> bool:
        nonlocal most
        most = max(most, bytes_in(scratch, ".safetensors"))
        return False

    ledger = FileLedger(tmp_path / "ledger")
    prune(request, tmp_path / "out", ledger=ledger, device="cpu", scratch=scratch, stop=watching)
    assert told.result == pytest.approx(bytes_in(tmp_path / "out", ".safetensors"), rel=0.05)
    assert told.checkpoints == pytest.approx(
        bytes_in(tmp_path / "ledger", "s.safetensors"), rel=0.2
    )
    assert most <= 1.1 * told.scratch
    assert told.scratch <= 1.5 * most


def test_each_format_is_another_result(
    saved_model: Callable[..., Path], request_for: Callable[..., PruneRequest], tmp_path: Path
) -> None:
    model = saved_model(hidden=96, channels=256, head_dim=24, layers=3)
    request = request_for(model, preset="statistics").model_copy(
        update={"formats": (Format.GGUF_F16, Format.GGUF_Q8_0, Format.MLX)}
    )
    told = disk(request, dense_config(request.model), 1)
    prune(request, tmp_path / "out", ledger=FileLedger(tmp_path / "ledger"), device="cpu")
    found = bytes_in(tmp_path / "out", ".safetensors") + bytes_in(tmp_path / "out", ".gguf")
    assert told.result == pytest.approx(found, rel=0.1)
