"""What a model is worth on token sequences: mean negative log-likelihood, by forward passes."""

import hashlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from bonsai_core.calibration import read_text, tokenize
from bonsai_core.config import ModelSource
from bonsai_core.errors import BrokenNumericsError, InvalidCalibrationError
from bonsai_core.events import GoOn, regardless
from bonsai_core.families import Family
from bonsai_core.models import (
    device_named,
    load_saved,
    logits_of,
    non_embedding_parameters,
    parameters,
)
from bonsai_core.portions import positions_at_once, sequences_at_once
from bonsai_core.versions import versions


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A perplexity with its whole protocol: windows of one text, no overlap, no special tokens."""

    perplexity: float
    mean_nll: float
    windows: int
    window: int
    tokens: int
    """Predicted tokens: window - 1 in each window."""
    parameters: int
    non_embedding_parameters: int
    forward_tokens_per_second: float
    seconds: float
    device: str
    dtype: str
    text_sha256: str
    versions: dict[str, str]


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


def evaluate_folder(
    model: ModelSource, text: Path, *, window: int, windows: int | None, device: str
) -> Evaluation:
    """Perplexity of a saved model, pruned or not, on the first windows of a text.

    Args:
        model: a folder, hub id or GGUF file; pruned models need no remote code.
        text: a `.txt` or `.jsonl` file.
        window: tokens per window, from 2.
        windows: how many windows; None for all that the text has.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        InvalidCalibrationError: the text is missing or shorter than asked.
        InvalidModelError: the model cannot be loaded.
        UnsupportedModelError: it is of no family we know.
    """
    place = device_named(device)
    live, tokenizer, family = load_saved(model, place)
    sequences = first_windows(text, tokenizer, window=window, windows=windows).to(place)
    mean_nll(live, family, sequences[:1])  # warm-up: kernels chosen, memory allocated
    started = time.perf_counter()
    nll = mean_nll(live, family, sequences)
    seconds = time.perf_counter() - started
    return Evaluation(
        perplexity=perplexity_of(nll),
        mean_nll=nll,
        windows=sequences.shape[0],
        window=window,
        tokens=sequences.shape[0] * (window - 1),
        parameters=parameters(live),
        non_embedding_parameters=non_embedding_parameters(live),
        forward_tokens_per_second=sequences.numel() / seconds,
        seconds=seconds,
        device=str(place),
        dtype=str(next(live.parameters()).dtype).removeprefix("torch."),
        text_sha256=hashlib.sha256(text.read_bytes()).hexdigest(),
        versions=versions(),
    )


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
