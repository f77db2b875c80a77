"""Where the files of jobs live: the port, and its implementation on a local folder.

Keys are relative paths with `/`. A file is written under a temporary name, flushed and renamed,
so a reader never sees half of one. What a key holds never changes.
"""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol
from uuid import UUID, uuid4


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in the store."""

    key: str
    size_bytes: int
    sha256: str


class ArtifactStore(Protocol):
    """What the service needs of a place for files."""

    def put(self, key: str, source: Path) -> StoredFile:
        """Store a copy of `source` durably under `key`."""
        ...

    def path(self, key: str) -> Path:
        """A local path to read the file at; FileNotFoundError when there is none."""
        ...

    def delete(self, prefix: str) -> None:
        """Remove every file whose key starts with the folder `prefix`; none there is fine."""
        ...


def files_prefix(job_id: UUID) -> str:
    """Folder of all that a job has stored, in whichever attempt."""
    return f"jobs/{job_id}"


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class LocalArtifactStore:
    """Files below one folder, which API and workers share."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def put(self, key: str, source: Path) -> StoredFile:
        """See `ArtifactStore.put`."""
        target = self._locate(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid4().hex}")
        try:
            shutil.copyfile(source, temporary)
            _flush(temporary)
            stored = StoredFile(key, temporary.stat().st_size, sha256_of(temporary))
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        _flush(target.parent)
        return stored

    def path(self, key: str) -> Path:
        """See `ArtifactStore.path`."""
        path = self._locate(key)
        if not path.is_file():
            raise FileNotFoundError(f"the artifact store has no file {key!r}")
        return path

    def delete(self, prefix: str) -> None:
        """See `ArtifactStore.delete`."""
        shutil.rmtree(self._locate(prefix), ignore_errors=True)

    def _locate(self, key: str) -> Path:
        parts = PurePosixPath(key).parts
        if not parts or key.startswith("/") or any(part in {"..", "."} for part in parts):
            raise ValueError(f"key: {key!r} is not a relative path without '..'")
        return self._root.joinpath(*parts)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
