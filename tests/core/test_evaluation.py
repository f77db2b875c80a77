"""The negative log-likelihood is the textbook's, without the whole logits ever existing."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as functional
from safetensors.torch import load_file, save_file

from bonsai_core import portions
from bonsai_core.config import ModelSource
from bonsai_core.errors import BrokenNumericsError, InvalidCalibrationError
from bonsai_core.evaluation import first_windows, mean_nll, perplexity_of
from bonsai_core.models import LoadedModel, load
from tests.tiny_models import VOCABULARY, tiny_model, tiny_tokenizer

SEQUENCES = torch.randint(0, 256, (5, 50), generator=torch.Generator().manual_seed(0))


def loaded_model(folder: Path) -> LoadedModel:
    return load(ModelSource(source=str(folder)), torch.device("cpu"))


@torch.inference_mode()
def textbook(loaded: LoadedModel) -> float:
    logits = loaded.model(SEQUENCES).logits[:, :-1].double()
    labels = SEQUENCES[:, 1:]
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).item()


@pytest.mark.parametrize("tokens", [1, 120, 2048])
@pytest.mark.parametrize("positions", [1, 100, 256])
def test_the_mean_is_the_same_in_any_portions(
    saved_model: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tokens: int,
    positions: int,
) -> None:
    monkeypatch.setitem(portions.TOKENS, "cpu", tokens)
    monkeypatch.setitem(portions.POSITIONS, "cpu", positions)
    loaded = loaded_model(saved_model())
    found = mean_nll(loaded.model, loaded.family, SEQUENCES)
    assert found == pytest.approx(textbook(loaded), rel=1e-5)


def test_the_mean_is_the_textbooks_in_every_family(
    saved_model: Callable[..., Path], architecture: str
) -> None:
    loaded = loaded_model(saved_model(architecture, tied=True))
    found = mean_nll(loaded.model, loaded.family, SEQUENCES)
    assert found == pytest.approx(textbook(loaded), rel=1e-5)


def test_the_logits_of_the_batch_never_exist_at_once(saved_model: Callable[..., Path]) -> None:
    loaded = loaded_model(saved_model())
    sizes: list[int] = []
    hook = loaded.model.lm_head.register_forward_hook(
        lambda _module, _inputs, logits: sizes.append(logits.numel())
    )
    long = SEQUENCES.repeat(40, 1)
    mean_nll(loaded.model, loaded.family, long)
    hook.remove()
    assert max(sizes) <= 256 * VOCABULARY
    assert sum(sizes) == 40 * 5 * 49 * VOCABULARY


def test_weights_that_are_not_numbers_are_named(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    loaded = loaded_model(folder)
    with pytest.raises(BrokenNumericsError, match="not finite") as caught:
        mean_nll(loaded.model, loaded.family, SEQUENCES)
    assert caught.value.field == "model.dtype"
    assert math.isnan(float(str(caught.value.value)))
    assert "bfloat16" in caught.value.cure


def test_a_perplexity_is_always_a_number_that_json_can_hold() -> None:
    assert perplexity_of(2.0) == math.exp(2.0)
    assert math.isfinite(perplexity_of(1e6) ** 2)


def test_windows_are_the_first_of_the_text_without_overlap(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("abcdefghij" * 3)
    windows = first_windows(path, tiny_tokenizer(), window=8, windows=None)
    expected = tiny_tokenizer()(path.read_text())["input_ids"][:24]
    assert windows.flatten().tolist() == expected
    with pytest.raises(InvalidCalibrationError, match="allowed: 1 to 3"):
        first_windows(path, tiny_tokenizer(), window=8, windows=4)
    with pytest.raises(InvalidCalibrationError, match="a longer text or a shorter window"):
        first_windows(path, tiny_tokenizer(), window=31, windows=None)
