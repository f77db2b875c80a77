"""The picture's table compares what ours and the paper's recipe spend for the same perplexity."""

import json
from pathlib import Path

from benchmarks.results import Key, Result, Results
from benchmarks.token_plot import Point, alike, frontier, points_of, table

PROTOCOL = {
    "model": {"name": "tiny"},
    "dtype": "float32",
    "device": "cpu",
    "window": 32,
    "windows": {"evaluation": 4},
    "predictions": "all",
    "sparsity": "counted",
    "texts": {"evaluation": "abc"},
    "calibration": {"samples": 8},
}


def test_ours_is_compared_with_the_papers_recipe_at_the_same_perplexity(tmp_path: Path) -> None:
    smaller = PROTOCOL | {"calibration": {"samples": 2}}
    other = PROTOCOL | {"window": 64}
    results = Results(tmp_path)

    def add(digest: str, method: str, settings: str, perplexity: float, tokens: float) -> None:
        key = Key(digest, method, settings, 0.2, 0)
        result = Result(key, {"evaluation": perplexity}, 0.2, 1, 0, tokens, 1.0, 1.0, "a", "b")
        results.add(result)

    add("first", "bonsai-paper", "4 masks", 50.0, 1000.0)
    add("first", "ours", "defaults", 30.0, 900.0)
    add("second", "ours", "defaults", 45.0, 50.0)
    add("third", "ours", "defaults", 1.0, 1.0)
    calibrations = alike({"first": PROTOCOL, "second": smaller, "third": other}, "first")
    assert calibrations == {"first": "samples 8", "second": "samples 2"}
    points = points_of(results, calibrations)
    assert [point.tokens for point in points] == [50, 900, 1000]
    written = table(points, json.loads(json.dumps(PROTOCOL)), 20.0)
    assert "| 20% | 4 masks | 1,000 | 50.00 | samples 2, defaults | 50 | 45.00 | 0.050 |" in written


def test_a_line_joins_what_no_cheaper_point_equals() -> None:
    def point(tokens: float, perplexity: float) -> Point:
        return Point("ours", "", 0.2, tokens, perplexity, 1)

    worth = [point(10, 9.0), point(20, 5.0), point(40, 4.0)]
    beaten = [point(20, 6.0), point(30, 5.0), point(50, 4.5)]
    assert frontier([*beaten, *reversed(worth)]) == worth
