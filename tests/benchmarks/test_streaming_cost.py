"""Fewer weights on the device at once: the same losses, and what is held is counted."""

import json
from pathlib import Path

import pytest

from benchmarks.round_cost import SHAPES
from benchmarks.streaming_cost import main


def test_the_same_loss_whatever_comes_and_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "vocab_size": 128}
    monkeypatch.setitem(
        SHAPES,
        "smollm2-135m",
        SHAPES["smollm2-135m"]
        | sizes
        | {
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        },
    )
    main(["--layers=6", "--sequences=2", "--sequence-length=16", f"--output={tmp_path}"])
    found = json.loads((tmp_path / "streaming-smollm2-135m-cpu.json").read_text())
    assert found["same_loss"]
    assert [run["streamed"] for run in found["runs"].values()] == [0, 5, 6]
    held = [run["weights_peak_bytes"] for run in found["runs"].values()]
    assert held[0] == found["weights_bytes"] > held[1] > held[2]
