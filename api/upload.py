"""Takes in a text that is sent as the body of a request: checked and measured as it comes.

Nothing of it is kept in memory, and nothing of one that is refused or cut off on the disk.
"""

import base64
import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from api.problems import (
    DIGEST_MISMATCH,
    MALFORMED_REQUEST,
    UNSUPPORTED_MEDIA_TYPE,
    ProblemError,
)
from jobs.dataset_text import DatasetText, DatasetType
from jobs.datasets import Upload

_TYPES = {
    "text/plain": DatasetType.TEXT,
    "application/jsonl": DatasetType.JSONL,
    "application/x-ndjson": DatasetType.JSONL,
}
_DIGEST = re.compile(r"(?:^|[\s,])sha-256=:([A-Za-z0-9+/]{43}=):")


_PREFIX = "upload-"
_LAST_SECONDS = 24 * 3600


def remove_left_overs(scratch: Path) -> None:
    """Remove what uploads have left that were on their way when the service was killed, a day ago
    or longer: others may be another process's."""
    for folder in scratch.glob(f"{_PREFIX}*"):
        # It may have gone in between.
        with suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime > _LAST_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def received(request: Request, scratch: Path) -> AsyncIterator[Upload]:
    """The body of a request as a file, which goes when the context ends.

    Args:
        scratch: folder for the file; made here.

    Raises:
        ProblemError: it is of another type, or not what its digest says.
        InvalidDatasetError: it is no text to calibrate on.
    """
    media_type = _type_of(request)
    wanted = _wanted_digest(request)
    await run_in_threadpool(scratch.mkdir, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix=_PREFIX) as folder:
        path = Path(folder) / "text"
        with path.open("wb") as file:
            text, size, digest = await _written(request, file, media_type)
        if wanted is not None and wanted != digest:
            raise ProblemError(
                DIGEST_MISMATCH,
                f"what came has the SHA-256 {digest.hex()}, and {wanted.hex()} was announced; send "
                "it again",
            )
        yield Upload(path, media_type, size, text.lines, digest.hex())


async def _written(
    request: Request, file: BinaryIO, media_type: DatasetType
) -> tuple[DatasetText, int, bytes]:
    """Writes what comes; the text, its bytes and its SHA-256."""
    text, digest = DatasetText(media_type), hashlib.sha256()

    def take(piece: bytes) -> int:
        digest.update(piece)
        text.add(piece)
        file.write(piece)
        return file.tell()

    size = 0
    try:
        async for piece in request.stream():
            size = await run_in_threadpool(take, piece)
    except ClientDisconnect as error:
        raise ProblemError(MALFORMED_REQUEST, "the body was cut off; send it again") from error
    await run_in_threadpool(text.end)
    return text, size, digest.digest()


def _type_of(request: Request) -> DatasetType:
    said = request.headers.get("content-type", "").partition(";")
    found = _TYPES.get(said[0].strip().lower())
    coding = request.headers.get("content-encoding", "identity").lower()
    charset = said[2].replace(" ", "").replace('"', "").lower()
    if found is None or coding != "identity" or charset not in {"", "charset=utf-8"}:
        raise ProblemError(
            UNSUPPORTED_MEDIA_TYPE,
            f"got Content-Type {said[0]!r} {said[2]!r} and Content-Encoding {coding!r}; send the "
            f"text as it is, in UTF-8, as one of {', '.join(_TYPES)}",
        )
    return found


def _wanted_digest(request: Request) -> bytes | None:
    """The SHA-256 that the client has announced, as in RFC 9530."""
    for name in ("content-digest", "repr-digest"):
        found = _DIGEST.search(request.headers.get(name, ""))
        if found:
            return base64.b64decode(found[1])
    return None
