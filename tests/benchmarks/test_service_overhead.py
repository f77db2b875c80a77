"""The job of the measurement ends well both ways."""

import json
from pathlib import Path

from benchmarks.service_overhead import main
from tests.tiny_models import tiny_model, tiny_text


def test_a_pair_is_measured(tmp_path: Path) -> None:
    model, text = tiny_model(tmp_path / "model"), tiny_text(tmp_path / "text.txt")
    options = {"calibration": text, "model": model, "samples": 2, "window": 32, "pairs": 1}
    options["output"] = tmp_path
    main([part for name, value in options.items() for part in (f"--{name}", str(value))])
    found = json.loads((tmp_path / "service-overhead.json").read_text())
    ((bare, service),) = found["seconds"]
    assert bare > 0
    assert found["ratio"] == service / bare
