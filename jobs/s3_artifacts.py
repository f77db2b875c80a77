"""The artifact store on S3, or on what speaks like it.

A file of more than one part goes up in parts, each tried again on its own, and appears when the
last one is there. Its digest is taken on the way and compared with what the store gives back.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import obstore
import structlog
from obstore.exceptions import BaseError
from obstore.store import S3Store

from jobs.artifacts import StoredFile, require_key, require_sound, sound_pieces
from jobs.errors import DamagedFileError, StorageUnavailableError

_log = structlog.get_logger(__name__)

_PART = 16 << 20
"""Bytes of a part of an upload, of which some are in memory at once."""

_MOST_PARTS = 10_000
"""Of one file, as S3 has it; the parts of a file of more than 156 GiB are larger."""

_PARTS_AT_ONCE = 4

_PIECE = 4 << 20
"""Bytes of a read; each is a request of its own, so a slow reader keeps no connection."""

_TRIES = 100
"""Of a request; patience ends before."""

_UPLOADS = 2
"""Of a file that comes back as something else, before giving up."""

_OF_ONE_FILE = {"look for", "read"}
"""What fails for want of a file; other work does for want of a bucket."""

_READ_TIMEOUT = timedelta(seconds=30)
_REQUEST_TIMEOUT = timedelta(minutes=10)


class S3ArtifactStore:
    """Files below a prefix of a bucket.

    Endpoint, region and credentials are those of the environment, as AWS's own tools read it.

    Args:
        url: `s3://bucket/prefix`.
        patience_seconds: for how long a request is tried again.
        on_piece: called for each piece that is sent or received, to tell that work goes on.
    """

    def __init__(
        self, url: str, *, patience_seconds: float, on_piece: Callable[[], object] = lambda: None
    ) -> None:
        self._on_piece = on_piece
        self._store = S3Store.from_url(
            url,
            # Who names an endpoint without TLS means it.
            client_options={
                "allow_http": True,
                "read_timeout": _READ_TIMEOUT,
                "timeout": _REQUEST_TIMEOUT,
            },
            retry_config={
                "max_retries": _TRIES,
                "retry_timeout": timedelta(seconds=patience_seconds),
                "backoff": {"max_backoff": timedelta(seconds=5)},
            },
        )

    def put(self, key: str, source: Path) -> StoredFile:
        """See `jobs.artifacts.ArtifactStore.put`."""
        for _ in range(_UPLOADS):
            stored = self._upload(require_key(key), source)
            try:
                require_sound(self, stored)
            except DamagedFileError as error:
                _log.warning("upload_damaged", key=key, error=str(error))
                self._remove([key])
            else:
                return stored
        raise StorageUnavailableError("store", key, "it gives back something else")

    def size(self, key: str) -> int:
        """See `jobs.artifacts.ArtifactStore.size`."""
        with self._asking("look for", key):
            return obstore.head(self._store, require_key(key))["size"]

    def read(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """See `jobs.artifacts.ArtifactStore.read`."""
        require_key(key)
        while start < end:
            piece = self._piece(key, start, min(_PIECE, end - start))
            if not piece:
                raise EOFError(f"stored file {key!r} ends at byte {start}, before {end}")
            start += len(piece)
            self._on_piece()
            yield piece

    def _piece(self, key: str, start: int, length: int) -> bytes:
        """As many bytes as there are; what starts behind the end is refused by the store."""
        try:
            with self._asking("read", key):
                return bytes(obstore.get_range(self._store, key, start=start, length=length))
        except StorageUnavailableError:
            if self.size(key) <= start:
                return b""
            raise

    @contextmanager
    def at_hand(self, file: StoredFile, scratch: Path) -> Iterator[Path]:
        """See `jobs.artifacts.ArtifactStore.at_hand`."""
        copy = scratch / uuid4().hex
        try:
            with copy.open("wb") as target:
                for piece in sound_pieces(self, file):
                    target.write(piece)
            yield copy
        finally:
            copy.unlink(missing_ok=True)

    def link(self, key: str, seconds: int) -> str:
        """See `jobs.artifacts.ArtifactStore.link`."""
        with self._asking("sign", key):
            return obstore.sign(self._store, "GET", require_key(key), timedelta(seconds=seconds))

    def delete(self, prefix: str) -> None:
        """See `jobs.artifacts.ArtifactStore.delete`."""
        with self._asking("list", prefix):
            pages = [list(page) for page in obstore.list(self._store, require_key(prefix))]
        for page in pages:
            self._remove([found["path"] for found in page])

    def _upload(self, key: str, source: Path) -> StoredFile:
        digest, size = hashlib.sha256(), source.stat().st_size
        part = max(_PART, -(-size // _MOST_PARTS))
        with source.open("rb") as file, self._asking("store", key):

            def pieces() -> Iterator[bytes]:
                while piece := file.read(part):
                    digest.update(piece)
                    self._on_piece()
                    yield piece

            content = pieces() if size > part else b"".join(pieces())
            obstore.put(self._store, key, content, chunk_size=part, max_concurrency=_PARTS_AT_ONCE)
            return StoredFile(key, file.tell(), digest.hexdigest())

    def _remove(self, keys: list[str]) -> None:
        with self._asking("delete", keys[0]):
            obstore.delete(self._store, keys)

    @contextmanager
    def _asking(self, work: str, key: str) -> Iterator[None]:
        """What goes wrong at the store, in words of the port."""
        try:
            yield
        except FileNotFoundError as error:
            if work in _OF_ONE_FILE:
                raise FileNotFoundError(f"the artifact store has no file {key!r}") from error
            raise StorageUnavailableError(work, key, "there is no such bucket") from error
        except BaseError as error:
            _log.warning("storage_failed", work=work, key=key, error=str(error))
            raise StorageUnavailableError(work, key, str(error).splitlines()[0]) from error
