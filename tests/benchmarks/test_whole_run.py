"""A whole run's seconds and memory are told phase by phase."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.peak import Peak
from benchmarks.whole_run import INFERENCE, LOADING, PHASES, TRIALS, main
from bonsai_core import events
from tests.benchmarks.conftest import paragraphs


@pytest.mark.parametrize("preset", [INFERENCE, "statistics", "paper"])
def test_a_child_measures_its_phases(
    model_folder: Path, tmp_path: Path, preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = paragraphs(tmp_path / "text.txt", characters=5000)
    options = {"child": preset, "calibration": text, "model": model_folder, "window": 32}
    options |= {"samples": 4, "set": "masks_per_round=4"}
    main([f"--{name}={value}" for name, value in options.items()])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    phases = {
        INFERENCE: {"one batch"},
        "statistics": {*PHASES.values()} - {TRIALS, PHASES[events.ModelLoaded]},
        "paper": {*PHASES.values()} - {PHASES[events.ModelLoaded]},
    }
    assert set(found["seconds"]) == set(found["peak_bytes"]) == phases[preset]
    assert all(peak > 0 for peak in found["peak_bytes"].values())
    if preset != INFERENCE:
        assert found["seconds"][LOADING]["cpu"] > 0
        assert found["sparsity"] == pytest.approx(0.5, abs=0.02)


def test_a_peak_is_what_came_since_it_was_last_asked_for() -> None:
    peak = Peak(torch.device("cpu"))
    peak.restart()
    before = peak.bytes()
    memory = torch.ones(2**24)
    assert peak.bytes() - before > 2**25
    del memory
    peak.restart()
    assert peak.bytes() - before < 2**25
