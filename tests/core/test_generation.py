"""Text that the model writes: from its own distribution, the same for the same seed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bonsai_core import generation
from bonsai_core.config import ModelSource
from bonsai_core.errors import Stopped
from bonsai_core.generation import mixed, written
from bonsai_core.models import LoadedModel, load
from bonsai_core.portions import halved
from bonsai_core.seeds import generator


@pytest.fixture
def loaded(saved_model: Callable[..., Path], architecture: str) -> LoadedModel:
    return load(ModelSource(source=str(saved_model(architecture))), torch.device("cpu"))


def random(seed: int = 0) -> np.random.Generator:
    return generator(seed, 0, "own text")


def test_the_same_seed_writes_the_same_and_another_something_else(loaded: LoadedModel) -> None:
    first = written(loaded.live, 3, 12, random())
    assert first.shape == (3, 12)
    assert first.dtype == torch.int64
    assert 0 <= int(first.min()) <= int(first.max()) < len(loaded.tokenizer)
    assert torch.equal(first, written(loaded.live, 3, 12, random()))
    assert not torch.equal(first, written(loaded.live, 3, 12, random(1)))


@torch.inference_mode()
def test_every_token_is_as_likely_as_the_model_says(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Along the text, the shares that uniform numbers fell into: each token's own slice."""
    monkeypatch.setattr(generation, "_DRAWN_TOGETHER", 2)
    vocabulary = min(len(loaded.tokenizer), loaded.model.config.vocab_size)
    tokens = written(loaded.live, 3, 10, random())
    shares = loaded.model(tokens).logits.double().softmax(-1).cumsum(-1)
    repeated = random()
    for rows in (slice(0, 2), slice(2, 3)):
        part = tokens[rows]
        first = torch.from_numpy(repeated.integers(vocabulary, size=(len(part), 1)))
        assert torch.equal(part[:, :1], first)
        for place in range(9):
            drawn = torch.from_numpy(repeated.random((len(part), 1)))
            upper = shares[rows, place].gather(1, part[:, place + 1 : place + 2])
            lower = shares[rows, place].gather(1, (part[:, place + 1 : place + 2] - 1).clamp_min(0))
            lower[part[:, place + 1 : place + 2] == 0] = 0
            assert ((lower - 1e-4 <= drawn) & (drawn <= upper + 1e-4)).all()


def test_how_many_are_written_side_by_side_does_not_matter(loaded: LoadedModel) -> None:
    together = written(loaded.live, 3, 12, random())
    with halved(5):
        assert torch.equal(together, written(loaded.live, 3, 12, random()))


def test_writing_can_be_stopped_between_two_passes(loaded: LoadedModel) -> None:
    asked = 0

    def go_on() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise Stopped

    with pytest.raises(Stopped):
        written(loaded.live, 2, 12, random(), go_on)
    assert written(loaded.live, 0, 12, random(), go_on).shape == (0, 12)


def test_every_part_of_a_mixture_has_its_share_of_both_kinds() -> None:
    given, own = torch.zeros(9, 2), torch.ones(3, 2)
    order = mixed(given, own)[:, 0]
    assert order.sum() == 3
    assert all(int(order[start : start + 4].sum()) == 1 for start in (0, 4, 8))
    assert torch.equal(mixed(given, own[:0]), given)
