"""Which tokens lose their sink is counted."""

from pathlib import Path

import pytest
import torch

from benchmarks.openings import lengths, lost, main
from bonsai_core.config import ModelSource
from bonsai_core.models import load_saved
from tests.tiny_models import tiny_model, tiny_text

CPU = torch.device("cpu")


def test_a_model_has_lost_nothing_against_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, text = tiny_model(tmp_path / "model"), tiny_text(tmp_path / "text.txt")
    main([str(model), "--model", str(model), "--text", str(text)])
    assert f"| {model} | 0.00% | 0.00% |" in capsys.readouterr().out


def test_the_state_is_the_one_that_enters_the_middle_layer(tmp_path: Path) -> None:
    source = ModelSource(source=str(tiny_model(tmp_path / "model", layers=4)))
    live = load_saved(source, CPU)
    model, family = live.model, live.family
    tokens = torch.arange(20)
    with torch.inference_mode():
        states = model(tokens[:, None], output_hidden_states=True).hidden_states
    assert torch.allclose(lengths(model, family, tokens), states[2][:, 0].norm(dim=-1))


def test_half_as_long_is_not_lost_and_less_is() -> None:
    before = torch.tensor([2.0, 2.0, 8.0, 8.0])
    assert lost(before, torch.tensor([1.0, 0.9, 9.0, 0.0])) == 0.5
