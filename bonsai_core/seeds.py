"""Generators for every random choice, each seeded by (job seed, round, purpose)."""

import zlib

import numpy as np


def generator(seed: int, round_number: int, purpose: str) -> np.random.Generator:
    """A generator that no other round or purpose shares, the same in every run."""
    words = [seed & 0xFFFFFFFF, seed >> 32, round_number, zlib.crc32(purpose.encode())]
    return np.random.default_rng(np.random.SeedSequence(words))
