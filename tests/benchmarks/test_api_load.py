"""Every route is asked, alone and beside open streams."""

import json
from pathlib import Path

from benchmarks.api_load import NOTHING, main


def test_every_route_has_its_turn(tmp_path: Path) -> None:
    few = ["--connections", "2", "--streams", "3", "--seconds", "0.2", "--turns", "1"]
    main([*few, "--output", str(tmp_path)])
    found = json.loads((tmp_path / "api-load.json").read_text())
    for half in ("alone", "beside_streams"):
        assert len(found[half]) == 4
        assert NOTHING in found[half]
        for measured in found[half].values():
            assert measured["requests_per_second"] > 0
            assert 0 < measured["p50"] <= measured["p99"]
    assert "POST /v1/jobs" in (tmp_path / "api-load.md").read_text()
