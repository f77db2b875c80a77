"""A ledger keeps what was written, heals what a crash tore, and belongs to one set of inputs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bonsai_core.errors import InputsChangedError
from bonsai_core.file_ledger import FileLedger
from bonsai_core.ledger import Ledger, MemoryLedger, RoundRecord

PRIOR = {"0.mlp": torch.tensor([0.1, 1 / 3, 2.0], dtype=torch.float64)}
WEIGHTS = {"0.mlp": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3).T}


def record_of(number: int) -> RoundRecord:
    return RoundRecord(
        number=number,
        removed={"0.mlp": [3, 5]},
        cut=number % 2 == 0,
        damping=None if number % 2 else 1 / 3,
        sparsity=0.1 * number,
        perplexity=20 / 3,
        trials=8,
        notes={"explained": -0.2, "regularisation": None},
    )


@pytest.fixture(params=["memory", "file"])
def reopened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Ledger]:
    """Gives the same ledger again, as a later run would find it."""
    memory = MemoryLedger()
    return lambda: memory if request.param == "memory" else FileLedger(tmp_path / "ledger")


def test_a_later_run_finds_what_was_written(reopened: Callable[[], Ledger]) -> None:
    reopened().open("inputs")
    assert reopened().finished_rounds() == []
    for number in (1, 2):
        assert reopened().prior(number) is None
        assert reopened().utilities(number) == {}
        reopened().begin_round(number, PRIOR)
        reopened().record(number, 0, -1 / 3, 0.01)
        reopened().record(number, 5, -2e-17, 0.01)
        reopened().finish_round(record_of(number), WEIGHTS)
    reopened().begin_round(3, PRIOR)
    reopened().open("inputs")
    assert reopened().finished_rounds() == [record_of(1), record_of(2)]
    for number in (1, 2):
        assert reopened().utilities(number) == {0: -1 / 3, 5: -2e-17}
        weights = reopened().weights(number)
        assert weights["0.mlp"].dtype == torch.bfloat16
        assert torch.equal(weights["0.mlp"], WEIGHTS["0.mlp"])
    prior = reopened().prior(3)
    assert prior is not None
    assert torch.equal(prior["0.mlp"], PRIOR["0.mlp"])
    assert reopened().utilities(3) == {}


def test_a_round_without_repair_has_no_weights(reopened: Callable[[], Ledger]) -> None:
    reopened().open("inputs")
    reopened().begin_round(1, PRIOR)
    reopened().finish_round(record_of(1), {})
    assert reopened().weights(1) == {}


def test_other_inputs_are_refused_and_nothing_is_changed(reopened: Callable[[], Ledger]) -> None:
    reopened().open("these")
    with pytest.raises(InputsChangedError) as caught:
        reopened().open("those")
    assert (caught.value.value, caught.value.allowed) == ("those", "these")
    assert "start anew" in caught.value.cure
    reopened().open("these")


def test_a_ledger_exists_once_a_run_has_opened_it(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "ledger"
    assert not FileLedger.exists(folder)
    FileLedger(folder).open("inputs")
    assert FileLedger.exists(folder)


@pytest.mark.parametrize("torn", ['{"tri', '{"trial": 1, "utility": -1.0, "seconds": 1}', "\0\0"])
def test_a_line_torn_by_a_crash_is_left_out_and_healed(tmp_path: Path, torn: str) -> None:
    ledger = FileLedger(tmp_path)
    ledger.open("inputs")
    ledger.begin_round(1, PRIOR)
    ledger.record(1, 0, -0.5, 0.1)
    trials = tmp_path / "round-001" / "trials.jsonl"
    with trials.open("a") as file:
        file.write(torn)
    assert ledger.utilities(1) == {0: -0.5}
    ledger.record(1, 1, -0.25, 0.1)
    assert ledger.utilities(1) == {0: -0.5, 1: -0.25}
    assert len(trials.read_text().splitlines()) == 2


def test_half_written_files_count_for_nothing(tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path)
    ledger.open("inputs")
    ledger.begin_round(1, PRIOR)
    folder = tmp_path / "round-001"
    for name in ("prior", "weights", "record"):
        (folder / f"{name}.partial").write_text("half")
    assert ledger.finished_rounds() == []
    ledger.finish_round(record_of(1), WEIGHTS)
    assert ledger.finished_rounds() == [record_of(1)]
    assert sorted(path.name for path in folder.glob("*.partial")) == ["prior.partial"]


def test_a_round_is_not_finished_before_its_record_is_there(tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path)
    ledger.open("inputs")
    ledger.begin_round(1, PRIOR)
    ledger.finish_round(record_of(1), WEIGHTS)
    (tmp_path / "round-001" / "record.json").unlink()
    assert ledger.finished_rounds() == []


def test_many_rounds_come_back_in_order(tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path)
    ledger.open("inputs")
    for number in (2, 1001, 10, 1, 101):
        ledger.begin_round(number, PRIOR)
        ledger.finish_round(record_of(number), {})
    numbers = [record.number for record in ledger.finished_rounds()]
    assert numbers == [1, 2, 10, 101, 1001]
