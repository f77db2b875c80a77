"""Results last, are found again by their key, and half a line harms nothing."""

from dataclasses import replace
from pathlib import Path

from benchmarks.bonsai_runs import Account
from benchmarks.quality_tables import Spread, number
from benchmarks.results import ALL_WINDOWS, Key, Result, Results
from benchmarks.spending import Spending

KEY = Key("abc", "wanda", "", 0.2, 1)
RESULT = Result(KEY, {"evaluation": 12.5}, 0.2, 100, 0, 512.0, 1.5, 2.0, "a machine", "2026-01-01")


def test_results_are_found_again_by_key(tmp_path: Path) -> None:
    Results(tmp_path).add(RESULT)
    found = Results(tmp_path)
    assert KEY in found
    assert list(found.of("abc")) == [RESULT]
    assert not found.of("another protocol")
    for changed in ({"seed": 2}, {"sparsity": 0.3}, {"part": ALL_WINDOWS}, {"settings": "x"}):
        assert replace(KEY, **changed) not in found


def test_half_a_line_is_left_alone_and_the_next_result_is_whole(tmp_path: Path) -> None:
    Results(tmp_path).add(RESULT)
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"key": {"protocol"')
    second = replace(RESULT, key=replace(KEY, seed=2))
    Results(tmp_path).add(second)
    assert list(Results(tmp_path).of("abc")) == [RESULT, second]


def test_an_interrupted_runs_spending_is_counted_on(tmp_path: Path) -> None:
    first = Account.opened(tmp_path / "spending.json")
    first.note(Spending(100, 1, 2), finished_round=1)
    first.note(Spending(150, 2, 3))
    second = Account.opened(tmp_path / "spending.json")
    assert second.note(Spending(10, 1, 1), finished_round=2) == Spending(160, 3, 4)
    assert Account.opened(tmp_path / "spending.json").rounds == {
        1: Spending(100, 1, 2),
        2: Spending(160, 3, 4),
    }


def test_numbers_are_shown_with_their_spread() -> None:
    assert Spread.of([3.0, 1.0, 2.0]).shown(".1f") == "2.0 (1.0 to 3.0)"
    assert Spread.of([2.0]).shown(".1f") == "2.0"
    assert number(123456.0, ".2f") == "1.2e+05"
