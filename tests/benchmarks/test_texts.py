"""The texts are the same every time, and what is for evaluation is not for calibration."""

from pathlib import Path

import pytest
import torch

from benchmarks.exam import beyond
from benchmarks.texts import (
    Text,
    documentation,
    file_text,
    mixed_calibration,
    speeches,
    spread,
    windows_of,
)
from bonsai_core.calibration import calibration_batch, tokenize
from bonsai_core.evaluation import first_windows
from tests.benchmarks.conftest import paragraphs
from tests.tiny_models import tiny_tokenizer


def test_windows_are_those_of_the_librarys_own_evaluation(tmp_path: Path) -> None:
    path = paragraphs(tmp_path / "text.txt")
    found = windows_of(file_text("evaluation", path), tiny_tokenizer(), 64)
    assert torch.equal(found, first_windows(path, tiny_tokenizer(), window=64, windows=None))


def test_spread_windows_are_of_all_parts_of_the_text() -> None:
    windows = torch.arange(100)[:, None].expand(100, 8)
    assert spread(windows, 4)[:, 0].tolist() == [12, 37, 62, 87]
    assert len(spread(windows, 1000)) == 100


def test_speeches_are_of_all_years_and_their_package_is_never_imported(
    speeches_package: Path,
) -> None:
    content = speeches().content
    files = sorted(speeches_package.glob("*.txt"))
    assert [path.read_text() in content for path in files] == [n % 8 == 0 for n in range(60)]


def test_held_out_documentation_shares_no_topic_with_the_other() -> None:
    from pydoc_data.topics import topics

    for_calibration, held_out = documentation(held_out=False), documentation(held_out=True)
    assert for_calibration.sha256 != held_out.sha256
    for number, name in enumerate(sorted(topics)):
        assert topics[name] in (held_out if number % 2 else for_calibration).content


def test_a_mixed_calibration_text_has_its_share_of_windows_of_each_source(tmp_path: Path) -> None:
    home = file_text("home", paragraphs(tmp_path / "home.txt"))
    other = Text("other", "0123456789 " * 3000)
    shares = [(home, 0.75), (other, 0.25)]
    options = {"samples": 16, "length": 64, "folder": tmp_path / "scratch"}
    source = mixed_calibration(shares, tiny_tokenizer(), seed=1, **options)
    batch = calibration_batch(source, tiny_tokenizer(), seed=1)
    assert batch.shape == (16, 64)
    texts = [tiny_tokenizer().decode(window) for window in batch]
    digits = [sum(character.isdigit() for character in text) for text in texts]
    assert sum(digits) / sum(map(len, texts)) == pytest.approx(0.25 * 10 / 11, abs=0.03)
    # The first windows stand for all: a method that takes a few has both sources.
    assert any(digits[:4])
    assert not all(digits[:4])
    assert mixed_calibration(shares, tiny_tokenizer(), seed=1, **options) == source
    assert mixed_calibration(shares, tiny_tokenizer(), seed=2, **options) != source


def test_what_lies_beyond_the_windows_is_in_none_of_them(tmp_path: Path) -> None:
    text = file_text("evaluation", paragraphs(tmp_path / "text.txt"))
    rest = beyond(text, 1000, tiny_tokenizer())
    assert text.content.endswith(rest)
    seen = tokenize([text.content.removesuffix(rest)], tiny_tokenizer())
    assert 1000 <= len(seen) < 3000
