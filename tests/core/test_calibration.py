"""Texts of every kind become the same kind of sequences; what cannot is refused by name."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from bonsai_core import calibration
from bonsai_core.calibration import (
    calibration_batch,
    digest_of,
    read_text,
    tokenize,
)
from bonsai_core.config import CalibrationSource
from bonsai_core.errors import InvalidCalibrationError
from tests.tiny_models import tiny_tokenizer


def batch(source: Path | str, samples: int = 4, length: int = 16, seed: int = 0) -> torch.Tensor:
    described = CalibrationSource(source=str(source), samples=samples, sequence_length=length)
    return calibration_batch(described, tiny_tokenizer(), seed)


def test_sequences_are_windows_of_the_text_in_order(text: Path) -> None:
    tokens = tiny_tokenizer()(text.read_text())["input_ids"]
    windows = [tokens[start : start + 16] for start in range(0, len(tokens) - 15, 16)]
    found = batch(text).tolist()
    places = [windows.index(sequence) for sequence in found]
    assert places == sorted(set(places))
    assert batch(text).dtype == torch.int64


def test_the_seed_alone_chooses_the_windows(text: Path) -> None:
    assert torch.equal(batch(text, seed=1), batch(text, seed=1))
    assert not torch.equal(batch(text, seed=1), batch(text, seed=2))


def test_all_windows_can_be_asked_for_and_not_one_more(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("x" * 100)
    assert batch(path, samples=6).shape == (6, 16)
    with pytest.raises(InvalidCalibrationError, match="allowed: at most 6") as caught:
        batch(path, samples=7)
    assert caught.value.field == "calibration.samples"
    assert caught.value.value == 7
    with pytest.raises(InvalidCalibrationError, match="allowed: a longer text"):
        batch(path, length=128)


def test_an_empty_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.txt").touch()
    with pytest.raises(InvalidCalibrationError, match="the text has 0 tokens"):
        batch(tmp_path / "text.txt")


def test_a_long_text_is_tokenised_in_pieces_that_change_nothing(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = batch(text)
    monkeypatch.setattr(calibration, "_PIECE", 100)
    assert torch.equal(batch(text), whole)


def test_no_more_of_a_text_is_read_than_needed() -> None:
    lines = iter(["one line\n"] * 100)
    assert "".join(calibration._pieces(lines, budget=90)) == "one line\n" * 10
    assert len(list(lines)) == 90


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    lines = [json.dumps({"text": f"Row {number} says something."}) for number in range(30)]
    path.write_text("\n".join(lines) + "\n\n")
    return path


def test_rows_of_json_lines_are_texts_set_apart(rows: Path) -> None:
    texts = list(read_text(str(rows)))
    assert texts[:2] == ["Row 0 says something.\n\n", "Row 1 says something.\n\n"]
    assert len(texts) == 30
    assert batch(rows).shape == (4, 16)


@pytest.mark.parametrize("bad", ["{", "[]", '"text"', '{"body": "x"}', '{"text": 3}'])
def test_a_bad_row_is_named_by_its_line(rows: Path, bad: str) -> None:
    rows.write_text('{"text": "fine"}\n' + bad + "\n")
    with pytest.raises(InvalidCalibrationError, match="line 2") as caught:
        list(read_text(str(rows)))
    assert caught.value.field == "calibration.source"
    assert str(rows) in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidCalibrationError, match="not UTF-8"):
        list(read_text(str(path)))


@pytest.mark.parametrize("name", ["none.txt", "none.jsonl"])
def test_a_missing_file_is_never_taken_for_a_data_set(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidCalibrationError, match="there is no such file"):
        read_text(str(tmp_path / name))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pdf").touch()
    with pytest.raises(InvalidCalibrationError, match=r"allowed: a \.txt file"):
        read_text(str(tmp_path / "text.pdf"))


def test_relative_and_home_paths_are_found(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(text, tmp_path / "text.txt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = batch(text)
    for source in ("text.txt", "./text.txt", "~/text.txt"):
        assert torch.equal(batch(source), expected)


def test_a_folder_is_read_as_a_data_set(rows: Path, capfd: pytest.CaptureFixture[str]) -> None:
    expected = batch(rows)
    for source in (str(rows.parent), f"{rows.parent}::train"):
        assert torch.equal(batch(source), expected)
    assert capfd.readouterr() == ("", "")


def test_a_data_set_without_texts_names_its_columns(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"body": "x", "title": "y"}\n')
    with pytest.raises(InvalidCalibrationError, match="its columns: body, title"):
        batch(str(tmp_path))


def test_a_row_without_a_text_is_skipped_over(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": null}\n{"text": "a"}\n')
    assert "".join(read_text(str(tmp_path))).strip() == "a"


def test_a_folder_that_is_no_data_set_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidCalibrationError, match="the data set cannot be read") as caught:
        batch(str(tmp_path))
    assert caught.value.field == "calibration.source"
    assert caught.value.allowed


def test_the_digest_tells_batches_apart_by_tokens_and_shape() -> None:
    tokens = torch.arange(12)
    digests = {
        digest_of(tokens.reshape(3, 4)),
        digest_of(tokens.reshape(4, 3)),
        digest_of(tokens.flip(0).reshape(3, 4)),
    }
    assert len(digests) == 3
    assert digest_of(tokens.reshape(3, 4).int()) in digests


def test_tokens_have_no_special_ones_among_them() -> None:
    assert max(tokenize(["One text.", " Another."], tiny_tokenizer()).tolist()) < 256
