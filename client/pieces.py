"""A file that is sent, piece by piece."""

from collections.abc import Iterator
from typing import BinaryIO

_BYTES = 1 << 18


def pieces_of(file: BinaryIO) -> Iterator[bytes]:
    """From where it stands to its end."""
    while piece := file.read(_BYTES):
        yield piece
