"""Answers with something large, whole or from some byte to another (RFC 9110)."""

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from api.openapi import Responses, problems
from api.problems import MALFORMED_REQUEST, RANGE_NOT_SATISFIABLE, ProblemResponse
from api.request_log import request_id_of
from jobs.artifacts import ArtifactStore, StoredFile

_RANGE = re.compile(r"bytes=(?:(?P<first>\d{1,18})-(?P<last>\d{0,18})|-(?P<suffix>\d{1,18}))")
_SEVERAL = re.compile(r"bytes=[\d\s-]+(,[\d\s-]+)+")


@dataclass(frozen=True, slots=True)
class Content:
    """What may be had.

    Attributes:
        tag: names these bytes and no others, without quotes: the ETag.
        pieces: gives the bytes from the first number up to and without the second.
        headers: of its own.
    """

    size_bytes: int
    tag: str
    file_name: str
    media_type: str
    pieces: Callable[[int, int], Iterator[bytes]]
    headers: Mapping[str, str] = field(default_factory=dict)


def stored_content(
    files: ArtifactStore, file: StoredFile, *, file_name: str, media_type: str
) -> Content:
    """A stored file, named by its SHA-256, which goes along (RFC 9530)."""
    digest = base64.b64encode(bytes.fromhex(file.sha256)).decode()
    return Content(
        size_bytes=file.size_bytes,
        tag=file.sha256,
        file_name=file_name,
        media_type=media_type,
        pieces=partial(files.read, file.key),
        # What people upload is no page of this service.
        headers={"Repr-Digest": f"sha-256=:{digest}:", "X-Content-Type-Options": "nosniff"},
    )


class RangeNotReadableError(ValueError):
    """A Range header that says nothing."""


class RangeOutsideError(ValueError):
    """A range of bytes that are not there."""


def answer(request: Request, content: Content) -> Response:
    """The whole, or the range that the request names; to HEAD the headers of the whole.

    Several ranges at once are answered with the whole, as is a range of something that an If-Range
    does not name.
    """
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Disposition": _disposition(content.file_name),
        "ETag": f'"{content.tag}"',
        **content.headers,
    }
    if request.method == "HEAD":
        headers["Content-Length"] = str(content.size_bytes)
        return Response(headers=headers, media_type=content.media_type)
    try:
        span = _span(request, content.size_bytes, headers["ETag"])
    except RangeNotReadableError as error:
        return ProblemResponse(
            MALFORMED_REQUEST, str(error), request_id=request_id_of(request.scope)
        )
    except RangeOutsideError as error:
        return ProblemResponse(
            RANGE_NOT_SATISFIABLE,
            str(error),
            request_id=request_id_of(request.scope),
            headers={"Content-Range": f"bytes */{content.size_bytes}"},
        )
    start, end = span or (0, content.size_bytes)
    headers["Content-Length"] = str(end - start)
    if span:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{content.size_bytes}"
    return StreamingResponse(
        content.pieces(start, end),
        status_code=206 if span else 200,
        headers=headers,
        media_type=content.media_type,
    )


def _span(request: Request, size: int, tag: str) -> tuple[int, int] | None:
    """The range that is wanted of what has this ETag; None: the whole."""
    wanted = request.headers.get("range")
    if wanted is None or request.headers.get("if-range", tag) != tag:
        return None
    return parse_range(wanted, size)


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """The first byte of a Range and the one after its last; None for several ranges.

    Raises:
        RangeNotReadableError: it is not a range of bytes.
        RangeOutsideError: there are no such bytes.
    """
    if _SEVERAL.fullmatch(header):
        return None
    found = _RANGE.fullmatch(header)
    if found is None:
        raise RangeNotReadableError(f"Range: {header[:100]!r} is not like bytes=0-99")
    if found["suffix"]:
        start, end = max(size - int(found["suffix"]), 0), size
    else:
        start = int(found["first"])
        end = min(int(found["last"]) + 1, size) if found["last"] else size
        if found["last"] and int(found["last"]) < start:
            raise RangeNotReadableError(f"Range: {header!r} ends before it begins")
    if start >= end:
        raise RangeOutsideError(f"Range: {header!r} is outside of what has {size} bytes")
    return start, end


def ranged(
    what: str,
    *,
    media_type: str,
    or_another: bool = False,
    statuses: tuple[int, ...],
    **headers: str,
) -> Responses:
    """The responses of an operation that answers so, for its `responses`.

    Args:
        what: comes whole.
        media_type: of it.
        or_another: it may have any other media type as well.
        statuses: of problems, besides those of a range.
        headers: its own, with underscores for hyphens, and what each means.
    """
    described = {
        name.replace("_", "-"): {"description": meaning, "schema": {"type": "string"}}
        for name, meaning in {"ETag": "Names exactly these bytes.", **headers}.items()
    }
    content: dict[str, Any] = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    if or_another:
        content["*/*"] = {}
    return {
        200: {"description": what, "content": content, "headers": described},
        206: {"description": "The range asked for.", "content": content, "headers": described},
        **problems(400, 416, *statuses),
    }


def _disposition(file_name: str) -> str:
    quoted = quote(file_name, safe="")
    if quoted == file_name:
        return f'attachment; filename="{file_name}"'
    return f"attachment; filename*=utf-8''{quoted}"
