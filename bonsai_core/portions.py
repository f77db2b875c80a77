"""How much goes through a model at once: sequences of a forward pass, positions of its head.

What a device has room for is known only when it runs out, so a run that does so is made again with
half as much: `halved`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

# On a CPU, more only spills the caches; a GPU wants to be filled.
TOKENS = {"cpu": 2048, "cuda": 16384}
# Positions whose logits exist at once: the whole tensor [N, S, vocabulary] never does.
POSITIONS = {"cpu": 256, "cuda": 2048}

# Written side by side: their keys and values are in memory together.
_WRITTEN = 32

_halvings: ContextVar[int] = ContextVar("halvings", default=0)


@contextmanager
def halved(times: int) -> Iterator[None]:
    """While open, all portions of this thread are smaller by a factor of 2 ** times."""
    token = _halvings.set(times)
    try:
        yield
    finally:
        _halvings.reset(token)


def sequences_at_once(length: int, device: torch.device) -> int:
    """How many sequences of so many tokens a forward pass takes, at least 1."""
    return max(1, (TOKENS[device.type] >> _halvings.get()) // length)


def written_at_once() -> int:
    """How many sequences a model writes side by side, at least 1."""
    return max(1, _WRITTEN >> _halvings.get())


def positions_at_once(device: torch.device) -> int:
    """Positions whose logits exist at once, at least 1."""
    return max(1, POSITIONS[device.type] >> _halvings.get())
