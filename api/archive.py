"""All files of a job as one tar archive, of which every byte is known before any file is read.

The layout follows from names and sizes alone: modes, owners and times are always the same. So the
same files are always the same archive, and any range of it can be made without what comes before.
"""

import hashlib
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jobs.artifacts import ArtifactStore

_MODE = 0o644
_TIME = 315_532_800
"""1980, in seconds: tools mistrust files of 1970."""

_END = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the archive, and where the store has it."""

    name: str
    key: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class FileRange:
    """Bytes of a stored file, from `start` up to and without `end`."""

    key: str
    start: int
    end: int


class Archive:
    """The archive of some files, uncompressed: weights hardly get smaller.

    Args:
        folder: in which the files come.
        members: the files.

    Attributes:
        size_bytes: of the archive.
        tag: a digest of all that its bytes depend on.
    """

    def __init__(self, folder: str, members: Sequence[Member]) -> None:
        self._segments: list[bytes | FileRange] = []
        digest = hashlib.sha256()
        for member in members:
            header = _header(f"{folder}/{member.name}", member.size_bytes)
            digest.update(header + bytes.fromhex(member.sha256))
            padding = bytes(-member.size_bytes % tarfile.BLOCKSIZE)
            self._segments += [header, FileRange(member.key, 0, member.size_bytes), padding]
        self._segments.append(_END)
        self.size_bytes = sum(map(_length, self._segments))
        self.tag = digest.hexdigest()

    def parts(self, start: int, end: int) -> Iterator[bytes | FileRange]:
        """What makes up the bytes from `start` up to and without `end`, in order."""
        begin = 0
        for segment in self._segments:
            length = _length(segment)
            first, last = max(start - begin, 0), min(end - begin, length)
            if first < last:
                yield (
                    segment[first:last]
                    if isinstance(segment, bytes)
                    else FileRange(segment.key, first, last)
                )
            begin += length

    def read(self, files: ArtifactStore, start: int, end: int) -> Iterator[bytes]:
        """These bytes in pieces, from the store that has the files."""
        for part in self.parts(start, end):
            if isinstance(part, bytes):
                yield part
            else:
                yield from files.read(part.key, part.start, part.end)


def _length(segment: bytes | FileRange) -> int:
    return len(segment) if isinstance(segment, bytes) else segment.end - segment.start


def _header(path: str, size: int) -> bytes:
    """Of one file, as POSIX has it: any size, any name."""
    info = tarfile.TarInfo(path)
    info.size, info.mode, info.mtime = size, _MODE, _TIME
    return info.tobuf(tarfile.PAX_FORMAT)
