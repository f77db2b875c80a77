"""What a model is worth on token sequences: mean negative log-likelihood, by forward passes."""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from bonsai_core.calibration import read_text, tokenize
from bonsai_core.errors import BrokenNumericsError, InvalidCalibrationError
from bonsai_core.events import GoOn, regardless
from bonsai_core.families import Family
from bonsai_core.models import logits_of
from bonsai_core.portions import positions_at_once, sequences_at_once


@torch.inference_mode()
def mean_nll(model: Any, family: Family, sequences: Tensor, go_on: GoOn = regardless) -> float:
    """Mean negative log-likelihood of each token given those before it, in nats.

    Args:
        model: a causal language model in evaluation mode.
        family: where its backbone and head are.
        sequences: [N, S] int64 token ids on the model's device; S >= 2.
        go_on: called before each forward pass.

    Returns:
        The mean over N * (S - 1) predictions; summed in float64, softmax in float32.

    Raises:
        BrokenNumericsError: the mean is not finite.
    """
    backbone, head = model.get_submodule(family.backbone), logits_of(model, family)
    batch = sequences_at_once(sequences.shape[1], sequences.device)
    chunk = positions_at_once(sequences.device)
    total = torch.zeros((), dtype=torch.float64, device=sequences.device)
    for part in torch.split(sequences, batch):
        go_on()
        hidden = backbone(input_ids=part, use_cache=False).last_hidden_state[:, :-1]
        hidden, labels = hidden.flatten(0, 1), part[:, 1:].flatten()
        for states, targets in zip(
            torch.split(hidden, chunk), torch.split(labels, chunk), strict=True
        ):
            logits = head(states)
            total += functional.cross_entropy(logits, targets, reduction="sum").double()
    mean = total.item() / (sequences.shape[0] * (sequences.shape[1] - 1))
    if not math.isfinite(mean):
        raise BrokenNumericsError(
            "the model's negative log-likelihood is not finite",
            field="model.dtype",
            value=mean,
            cure="use bfloat16 or float32; float16 overflows in some models",
        )
    return mean


def perplexity_of(nll: float) -> float:
    """exp(nll), at most 5e34: beyond any meaning, but JSON can hold it and its square is finite."""
    return math.exp(min(nll, 80.0))


def first_windows(text: Path, tokenizer: Any, *, window: int, windows: int | None) -> Tensor:
    """The first windows of a text, without overlap; [windows, window] int64.

    Raises:
        InvalidCalibrationError: the text has fewer windows than asked for, or none.
    """
    tokens = tokenize(["".join(read_text(str(text)))], tokenizer)
    available = len(tokens) // window
    if available < (windows or 1):
        raise InvalidCalibrationError(
            f"the text has {len(tokens)} tokens, which is {available} windows of {window}",
            field="windows",
            value=windows,
            allowed=f"1 to {available}" if available else "a longer text or a shorter window",
        )
    count = windows or available
    return tokens[: count * window].reshape(count, window)
