"""One file of a job, fetched in as many pieces as it takes and checked as a whole.

The bytes go to a `.part` file beside the target, which a later try goes on with (Range, and
If-Range with the digest, so that pieces of two different files never meet). Only a file whose
size and SHA-256 are those promised gets the target's name.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path, PureWindowsPath

import httpx

from client.answers import require_success
from client.effects import Open, Operation, Pause, Piece, Work
from client.errors import ClientError, CorruptedDownloadError, UnreachableServiceError
from client.responses import Artifact
from client.tries import pauses

FRUITLESS_TRIES = 6
"""Tries in a row that bring no byte before giving up."""


class Download:
    """The download of one artifact into a folder."""

    def __init__(
        self,
        path: str,
        artifact: Artifact,
        folder: Path,
        on_bytes: Callable[[Artifact, int], None] | None = None,
    ) -> None:
        # The Windows reading of a name knows every way to leave a folder.
        steps = artifact.name.split("/")
        if any(PureWindowsPath(step).name != step or step in {"", ".."} for step in steps):
            raise ClientError(f"the service offers a file named {artifact.name!r}: not a file name")
        self._path = path
        self._artifact = artifact
        self._target = folder / artifact.name
        self._part = folder / f"{artifact.name}.part"
        self._on_bytes = on_bytes

    def run(self) -> Operation[Path]:
        """Fetch what is missing; the path of the whole file."""
        yield Work(lambda: self._target.parent.mkdir(parents=True, exist_ok=True))
        if (yield from self._is_whole(self._target)):
            self._tell(self._artifact.size_bytes)
            return self._target
        # What lay there from an earlier try may be at fault: so once more, from nothing.
        for _ in range(2):
            yield from self._complete()
            if (yield from self._is_whole(self._part)):
                yield Work(self._publish)
                return self._target
            size, digest = _size(self._part), (yield Work(lambda: sha256_of(self._part)))
            self._part.unlink()
        raise CorruptedDownloadError(self._artifact, size, digest)

    def _complete(self) -> Operation[None]:
        left = pauses(FRUITLESS_TRIES)
        while _size(self._part) < self._artifact.size_bytes or not self._part.exists():
            before = _size(self._part)
            failure: Exception = httpx.ReadError("the connection ended early")
            try:
                yield from self._receive(before)
            except UnreachableServiceError as error:
                failure = error
            if _size(self._part) >= self._artifact.size_bytes:
                return
            if _size(self._part) > before:
                left = pauses(FRUITLESS_TRIES)
            pause = next(left, None)
            if pause is None:
                raise failure
            yield Pause(pause)

    def _receive(self, begin: int) -> Operation[None]:
        # Ranges count bytes of the file, so nothing may be compressed on the way.
        headers = {"Accept-Encoding": "identity"}
        if begin:
            headers |= {"Range": f"bytes={begin}-", "If-Range": f'"{self._artifact.sha256}"'}
        response: httpx.Response = yield Open(self._path, headers)
        require_success(response)
        goes_on = response.status_code == httpx.codes.PARTIAL_CONTENT
        with self._part.open("ab" if goes_on else "wb") as file:
            while (piece := (yield Piece())) is not None:
                file.write(piece)
                self._tell(file.tell())
                # More than promised is wrong already, and might fill the disk.
                if file.tell() > self._artifact.size_bytes:
                    return

    def _publish(self) -> None:
        with self._part.open("rb") as file:
            os.fsync(file.fileno())
        self._part.replace(self._target)

    def _is_whole(self, path: Path) -> Operation[bool]:
        if not path.is_file() or _size(path) != self._artifact.size_bytes:
            return False
        digest = yield Work(lambda: sha256_of(path))
        return bool(digest == self._artifact.sha256)

    def _tell(self, received: int) -> None:
        if self._on_bytes is not None:
            self._on_bytes(self._artifact, received)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
