"""One number by which a saved model is recognised: what it computes on tokens known to all."""

from typing import Any

import torch
from torch import Tensor

from bonsai_core.budget import PROBE_TOKENS
from bonsai_core.evaluation import mean_nll
from bonsai_core.families import Family


def probe_tokens(vocabulary: int) -> Tensor:
    """Tokens that depend on nothing but how many there are; [1, PROBE_TOKENS] int64.

    They mean nothing, but every weight takes part in the model's answer to them.
    """
    return (torch.arange(PROBE_TOKENS) * 7919 + 101).remainder(vocabulary).unsqueeze(0)


def probe(model: Any, family: Family, device: torch.device) -> float:
    """Mean negative log-likelihood of the probe's tokens, in nats.

    Args:
        model: a causal language model in evaluation mode.
        family: where its backbone and head are.
        device: where its forward passes run.
    """
    vocabulary = model.get_input_embeddings().weight.shape[0]
    return mean_nll(model, family, probe_tokens(vocabulary).to(device))
