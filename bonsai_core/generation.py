"""Text that the model writes itself, for calibration beyond the text that was given.

A repair fits the calibration text and pays for it elsewhere. What a model says of its own accord
is spread over all that it was trained on, so a share of it in the calibration keeps the result from
forgetting the rest. Sampling from a random first token on is the data-free calibration of LLM-QAT
(arXiv 2305.17888, section 2.1); forward passes only.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bonsai_core.events import GoOn, regardless
from bonsai_core.models import LiveModel, logits_of
from bonsai_core.portions import written_at_once

_DRAWN_TOGETHER = 32


@torch.inference_mode()
def written(
    live: LiveModel,
    count: int,
    length: int,
    random: np.random.Generator,
    go_on: GoOn = regardless,
) -> Tensor:
    """Sequences sampled from the model, at temperature 1, each from a first token of its own.

    Args:
        live: the dense model.
        count: N, how many.
        length: S, tokens of each.
        random: the run's generator for them.
        go_on: called before each forward pass.

    Returns:
        [N, S] int64 token ids on the model's device.
    """
    sizes = [_DRAWN_TOGETHER] * (count // _DRAWN_TOGETHER) + [count % _DRAWN_TOGETHER]
    parts = [_drawn_together(live, size, length, random, go_on) for size in sizes if size]
    empty = torch.empty((0, length), dtype=torch.int64, device=live.device)
    return torch.cat([empty, *parts])


def vocabulary_of(live: LiveModel) -> int:
    """Tokens that both the tokeniser and the model know."""
    return min(len(live.tokenizer), int(live.model.get_output_embeddings().weight.shape[0]))


def _drawn_together(
    live: LiveModel, count: int, length: int, random: np.random.Generator, go_on: GoOn
) -> Tensor:
    """Sequences whose numbers are drawn at once, so that how many fit side by side says nothing."""
    vocabulary = vocabulary_of(live)
    first = random.integers(vocabulary, size=(count, 1))
    drawn = random.random((length - 1, count)).T
    size = written_at_once()
    parts = [
        _side_by_side(live, first[at : at + size], drawn[at : at + size], vocabulary, go_on)
        for at in range(0, count, size)
    ]
    return torch.cat(parts)


def _side_by_side(
    live: LiveModel, first: np.ndarray, drawn: np.ndarray, vocabulary: int, go_on: GoOn
) -> Tensor:
    """Write on from tokens [N, 1], by numbers [N, S - 1] between 0 and 1; [N, S]."""
    backbone: Any = live.model.get_submodule(live.family.backbone)
    logits = logits_of(live.model, live.family)
    tokens = [torch.from_numpy(first).to(live.device)]
    past = None
    for numbers in drawn.T:
        go_on()
        found = backbone(input_ids=tokens[-1], past_key_values=past, use_cache=True)
        past = found.past_key_values
        next_logits = logits(found.last_hidden_state[:, -1])[:, :vocabulary]
        tokens.append(_sampled(next_logits, numbers[:, None]))
    return torch.cat(tokens, dim=1)


def _sampled(logits: Tensor, uniform: np.ndarray) -> Tensor:
    """A token of each row by its probability; [N, 1] int64."""
    shares = torch.softmax(logits, dim=1).double().cumsum(dim=1)
    places = torch.from_numpy(uniform).to(logits.device) * shares[:, -1:]
    return torch.searchsorted(shares, places, right=True).clamp_max(logits.shape[1] - 1)


def mixed(given: Tensor, own: Tensor) -> Tensor:
    """Sequences [N, S] of two kinds in one order: every part of it has its share of both."""
    places = torch.cat(
        [(torch.arange(len(kind)) + 0.5) / max(1, len(kind)) for kind in (given, own)]
    )
    return torch.cat([given, own])[torch.argsort(places, stable=True).to(given.device)]
