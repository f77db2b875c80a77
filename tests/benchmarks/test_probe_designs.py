"""What single changes and pairs of random ones say, on a model where the answer is known."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import probe_designs
from benchmarks.probe_designs import main
from tests.benchmarks.conftest import paragraphs


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows as short as the tiny model's text is."""
    for name, value in {"WINDOW": 32, "SHORT": 32, "LISTENED": 16, "TRIED": 8}.items():
        monkeypatch.setattr(probe_designs, name, value)


@pytest.mark.usefixtures("small")
def test_every_design_estimates_the_same_slopes(model_folder: Path, tmp_path: Path) -> None:
    text = paragraphs(tmp_path / "text.txt", characters=20_000)
    options = {"calibration": text, "model": model_folder, "output": tmp_path, "pairs": 32}
    main([f"--{name}={value}" for name, value in options.items()])
    found = json.loads((tmp_path / "probe-designs-50.json").read_text())
    assert len(found["truth"]) == 4
    designs = {(row["design"], row["evaluations"]): row for row in found["designs"]}
    exact = np.array(designs["one at a time, to both sides", 8]["slopes"])
    assert np.abs(exact).max() > 0
    # With eight pairs for each of four gates and the same tokens, little but curvature is left.
    pairs = designs["random pairs, the same tokens", 64]
    assert np.allclose(pairs["slopes"], exact, atol=0.3 * np.abs(exact).max())
    assert pairs["forward_tokens"] == pytest.approx(64 * 8 * 32, abs=2)
    # Each of four layers once, those after each change, and the plan itself.
    single = designs["one at a time, a step further", 5]
    assert single["forward_tokens"] == pytest.approx(8 * 32 * (3 + 10 + 4) / 4, abs=2)
