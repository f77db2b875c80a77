"""Where the files of jobs live: the port, and its implementation on a local folder.

Keys are relative paths with `/`. A file appears under its key whole or not at all, and what a key
holds never changes.
"""

import hashlib
import os
import re
import shutil
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import UUID, uuid4

from jobs.errors import DamagedFileError

LONGEST_KEY = 1024
"""In bytes of UTF-8, as S3 has it."""

LONGEST_PART = 255
"""Of a key, in bytes of UTF-8, as file systems have it."""

_PIECE = 1 << 20

_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in the store."""

    key: str
    size_bytes: int
    sha256: str


class ArtifactStore(Protocol):
    """What the service needs of a place for files.

    Every method raises ValueError for a key that `require_key` refuses, and
    StorageUnavailableError where the place is away or refuses.
    """

    def put(self, key: str, source: Path) -> StoredFile:
        """Store a copy of `source` durably under `key`."""
        ...

    def size(self, key: str) -> int:
        """Bytes of a file; FileNotFoundError when there is none."""
        ...

    def read(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to and without `end`, in pieces of some MiB at most.

        Raises:
            FileNotFoundError: there is no such file.
            EOFError: it ends before.
        """
        ...

    def at_hand(self, file: StoredFile, scratch: Path) -> AbstractContextManager[Path]:
        """A local path with what was stored, for as long as the context lasts.

        Args:
            file: as it was stored.
            scratch: folder for a copy where the file is not on this machine.

        Raises:
            DamagedFileError: it is not what was stored.
        """
        ...

    def link(self, key: str, seconds: int) -> str | None:
        """A URL at which anybody may read the file for so long; None: this place has none."""
        ...

    def delete(self, prefix: str) -> None:
        """Remove every file whose key starts with the folder `prefix`; none there is fine."""
        ...


def files_prefix(job_id: UUID) -> str:
    """Folder of all that a job has stored, in whichever attempt."""
    return f"jobs/{job_id}"


def require_key(key: str) -> str:
    """The key, if it cannot mean anything outside its store, on any system; else ValueError."""
    parts = key.split("/")
    if "" in parts:
        raise ValueError(f"key: {key!r} is not a relative path, or has an empty part")
    if not {".", ".."}.isdisjoint(parts):
        raise ValueError(f"key: {key!r} is not a relative path without '.' and '..'")
    if _CONTROL.search(key):
        raise ValueError(f"key: {key!r} has a backslash or a control character")
    try:
        longest = max(len(part.encode()) for part in parts)
    except UnicodeEncodeError as error:
        raise ValueError(f"key: {key!r} is not Unicode text") from error
    if longest > LONGEST_PART or len(key.encode()) > LONGEST_KEY:
        raise ValueError(
            f"key: {key[:40]!r}... is too long: {LONGEST_KEY} bytes at most, and {LONGEST_PART} "
            "between two slashes"
        )
    return key


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sound_pieces(files: ArtifactStore, file: StoredFile) -> Iterator[bytes]:
    """A stored file in pieces.

    Raises:
        DamagedFileError: it is not what was stored, which is known after the last piece.
    """
    digest = hashlib.sha256()
    try:
        for piece in files.read(file.key, 0, files.size(file.key)):
            digest.update(piece)
            yield piece
    except FileNotFoundError as error:
        raise DamagedFileError(file.key, file.sha256, None) from error
    if digest.hexdigest() != file.sha256:
        raise DamagedFileError(file.key, file.sha256, digest.hexdigest())


def require_sound(files: ArtifactStore, file: StoredFile) -> None:
    """Read a file to its end; DamagedFileError where it is not what was stored."""
    deque(sound_pieces(files, file), maxlen=0)


class LocalArtifactStore:
    """Files below one folder, which API and workers share.

    A file is written under a temporary name, flushed and renamed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def put(self, key: str, source: Path) -> StoredFile:
        """See `ArtifactStore.put`."""
        target = self._locate(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{uuid4().hex}")
        try:
            shutil.copyfile(source, temporary)
            _flush(temporary)
            stored = StoredFile(key, temporary.stat().st_size, sha256_of(temporary))
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        _flush(target.parent)
        return stored

    def size(self, key: str) -> int:
        """See `ArtifactStore.size`."""
        return self._existing(key).stat().st_size

    def read(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """See `ArtifactStore.read`."""
        with self._existing(key).open("rb") as file:
            file.seek(start)
            while start < end:
                piece = file.read(min(_PIECE, end - start))
                if not piece:
                    raise EOFError(f"stored file {key!r} ends at byte {start}, before {end}")
                start += len(piece)
                yield piece

    @contextmanager
    def at_hand(self, file: StoredFile, scratch: Path) -> Iterator[Path]:
        """See `ArtifactStore.at_hand`; the file is where it is."""
        del scratch
        require_sound(self, file)
        yield self._existing(file.key)

    def link(self, key: str, seconds: int) -> None:
        """See `ArtifactStore.link`; a folder has no addresses."""
        del seconds
        require_key(key)

    def delete(self, prefix: str) -> None:
        """See `ArtifactStore.delete`."""
        shutil.rmtree(self._locate(prefix), ignore_errors=True)

    def _existing(self, key: str) -> Path:
        path = self._locate(key)
        if not path.is_file():
            raise FileNotFoundError(f"the artifact store has no file {key!r}")
        return path

    def _locate(self, key: str) -> Path:
        return self._root.joinpath(require_key(key))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
