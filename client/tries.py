"""What is waited before something is tried again that a network has spoilt."""

from collections.abc import Iterator

PAUSE_SECONDS = 0.5
"""Before the second try; it doubles with each."""


def pauses(tries: int) -> Iterator[float]:
    """Seconds to wait before each try but the first; at their end it is time to give up."""
    return (PAUSE_SECONDS * 2**number for number in range(tries - 1))
