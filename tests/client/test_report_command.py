"""The command in a report, read by the command line itself, asks for what was asked."""

import shlex
from typing import Any

import pytest
from typer.testing import CliRunner

from bonsai_core.config import PruneRequest
from bonsai_core.report.command import command_of
from client import prune
from client.cli import app

FILE = {"source": "/texts/a b.txt", "samples": 8, "sequence_length": 64}
WISHES: list[dict[str, Any]] = [
    {},
    {"target": {"sparsity": 0.5, "stops": [0.1, 0.25]}},
    {"target": {"parameters": 90_000_000, "stops": [120_000_000]}},
    {"target": {"memory_bytes": 123_456_789, "dtype": "float16", "stops": [200_000_001]}},
    {"pruning": {"preset": "paper", "masks_per_round": 40, "refit": True}},
    {"pruning": {"preset": "statistics", "prior": "wanda", "damping": 0.01, "seed": 7}},
    {"pruning": {"refit": False, "layout": "uniform", "align": 8, "own_text": 0.0}},
    {"pruning": {"samples_per_mask": 2, "experts": "whole", "recipe": "plugged.in"}},
    {"pruning": {"utility": [{"name": "nll", "weight": 0.5}, {"name": "kl", "weight": 2.0}]}},
    {"formats": ["gguf-q8_0", "mlx"]},
    {"report": {"enabled": False, "prompts": ["kept"]}},
    {"report": {"text": "/texts/other.jsonl", "prompts": ["It's a tree", '"$HOME" --no-report']}},
    {"model": {"source": "/models/a", "gguf_file": "b.gguf", "dtype": "bfloat16"}},
    {"model": {"source": "owner/name", "revision": "v1.0"}},
    {"calibration": {**FILE, "source": "dataset:0b6a6a9c-0000-5000-8000-000000000000"}},
]


@pytest.mark.parametrize("wish", WISHES, ids=str)
def test_the_command_asks_for_what_was_asked(
    wish: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {"model": {"source": "/models/a"}, "calibration": FILE, "target": {"sparsity": 0.3}}
    request = PruneRequest.model_validate(whole | wish)
    words = shlex.split(command_of(request))
    assert words[0] == "bonsai"
    if request.calibration.source.startswith("dataset:"):
        # The same options; only a service has the text.
        assert words[1] == "submit"
        words = ["bonsai", "prune", *words[2:], "--output", "pruned"]
    heard: list[Any] = []

    def run_prune(said: Any, *_: Any, **__: Any) -> int:
        heard.append(PruneRequest.model_validate(said))
        return 0

    monkeypatch.setattr(prune, "run_prune", run_prune)
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, result.output
    assert heard == [request]
