"""What a run listens to: sequences, and tokens that sequences may begin with."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bonsai_core.batch import batch_of
from bonsai_core.budget import TOKENS_PER_OPENING
from bonsai_core.config import ModelSource, PruneRequest
from bonsai_core.models import LoadedModel, load


@pytest.fixture
def loaded(saved_model: Callable[..., Path]) -> LoadedModel:
    return load(ModelSource(source=str(saved_model())), torch.device("cpu"))


def test_openings_are_of_the_text_and_of_the_vocabulary(
    loaded: LoadedModel, saved_model: Callable[..., Path], request_for: Callable[..., PruneRequest]
) -> None:
    request = request_for(saved_model(), preset="best")
    batch = batch_of(loaded, request)
    half = -(-request.calibration.tokens // TOKENS_PER_OPENING // 2)
    special = loaded.tokenizer.all_special_ids
    assert batch.openings.dtype == torch.int64
    assert len(batch.openings) == 2 * half + len(special)
    of_text, drawn, rest = batch.openings.split([half, half, len(special)])
    assert set(of_text.tolist()) <= set(batch.listened.flatten().tolist()) | set(
        batch.given.flatten().tolist()
    )
    assert 0 <= int(drawn.min()) <= int(drawn.max()) < len(loaded.tokenizer)
    assert rest.tolist() == special
    assert torch.equal(batch.openings, batch_of(loaded, request).openings)
    other = request_for(saved_model(), preset="best", seed=1)
    assert not torch.equal(batch.openings, batch_of(loaded, other).openings)
