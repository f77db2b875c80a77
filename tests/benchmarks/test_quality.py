"""The harness measures every method once, goes on where it stopped, and writes its tables."""

import json
from pathlib import Path

import pytest

from benchmarks.quality import METHODS, OURS, PAPER, main
from benchmarks.quality_tables import DENSE
from bonsai_core.config import ModelSource
from bonsai_core.measurement import compare
from tests.benchmarks.conftest import paragraphs

SETTINGS = {
    "--calibration-samples": "8",
    "--window": "32",
    "--windows": "4",
    "--other-windows": "2",
    "--questions": "4",
    "--sparsities": "0.1,0.3",
    "--seeds": "0",
    "--paper-masks": "4",
    "--paper-samples": "2",
}
SMALL = ["samples_per_mask=2", "improvements=1"]


@pytest.fixture
def texts(tmp_path: Path, speeches_package: Path) -> tuple[Path, Path]:
    return paragraphs(tmp_path / "valid.txt", 1), paragraphs(tmp_path / "test.txt", 2)


@pytest.fixture
def bench(model_folder: Path, texts: tuple[Path, Path], tmp_path: Path):
    """Run the harness with small settings; the results' lines so far."""

    def run(**changes: str) -> list[dict]:
        options = SETTINGS | {
            "--model": str(model_folder),
            "--calibration": str(texts[0]),
            "--evaluation": str(texts[1]),
            "--output": str(tmp_path / "output"),
            "--scratch": str(tmp_path / "scratch"),
        }
        options |= {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
        arguments = [part for pair in options.items() for part in pair]
        main([*arguments, *(part for setting in SMALL for part in ("--ours", setting))])
        lines = (tmp_path / "output" / "results.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    return run


def keys(results: list[dict]) -> list[tuple]:
    return [tuple(result["key"].values()) for result in results]


def test_every_method_is_measured_once_and_a_second_run_measures_nothing(
    bench, model_folder: Path, texts: tuple[Path, Path], tmp_path: Path
) -> None:
    results = bench(all_windows="wanda-uniform")
    found = {(r["key"]["method"], r["key"]["sparsity"], r["key"]["part"]) for r in results}
    wished = {(method, sparsity, "standard") for method in METHODS for sparsity in (0.1, 0.3)}
    wished |= {("wanda-uniform", sparsity, "all windows") for sparsity in (0.1, 0.3)}
    assert found == wished | {(DENSE, 0.0, "standard"), (DENSE, 0.0, "all windows")}
    assert len(results) == len(found)
    assert bench(all_windows="wanda-uniform") == results

    more = bench(all_windows="wanda-uniform", seeds="0,1", methods="wanda-uniform,magnitude")
    assert more[: len(results)] == results
    # Magnitude has no chance in it: another seed says nothing new.
    assert {(key[1], key[4]) for key in keys(more[len(results) :])} == {("wanda-uniform", 1)}

    dense = results[0]
    source = ModelSource(source=str(model_folder))
    _, [expected] = compare([source], texts[1], window=32, windows=4, device="cpu")
    assert dense["perplexity"]["evaluation"] == pytest.approx(expected.perplexity["text"])
    for result in results:
        asked = result["key"]["sparsity"]
        assert result["sparsity"] == pytest.approx(asked, abs=0.02)
        if result["key"]["method"] in {PAPER, OURS}:
            assert result["forward_tokens"] > 0
    [table] = (tmp_path / "output").glob("quality-*.md")
    assert all(f"| {method}" in table.read_text() for method in METHODS)
    [summary] = (tmp_path / "output").glob("quality-*.json")
    assert len(json.loads(summary.read_text())["rows"]) == len(METHODS) * 2 + 2


def test_another_protocol_has_its_own_results_and_tables(bench, tmp_path: Path) -> None:
    first = bench(methods="magnitude", sparsities="0.3")
    second = bench(methods="magnitude", sparsities="0.3", mix="0.25")
    assert len(second) == 2 * len(first)
    assert len({key[0] for key in keys(second)}) == 2
    assert len(list((tmp_path / "output").glob("quality-*.md"))) == 2


def test_bonsai_as_in_the_paper_costs_more_at_higher_sparsities_and_says_its_budget(bench) -> None:
    low, high = bench(methods=PAPER)[1:]
    assert low["key"]["settings"] == "4 masks x 2 windows"
    assert high["forward_tokens"] > low["forward_tokens"]
    # Each round: four masks and the passes of statistics and of the result, on two windows. Before
    # them the dense model's perplexity and utility, and a token that shows the form of an answer.
    assert low["forward_tokens"] == (2 * (4 + 1 + 1) + 2) * 2 * 32 + 1


def test_an_unknown_method_is_refused(bench) -> None:
    with pytest.raises(SystemExit):
        bench(methods="oracle")
