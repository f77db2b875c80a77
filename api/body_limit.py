"""Bounds the body of every request, before any of it is kept in memory or on the disk."""

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import CONTENT_TOO_LARGE, ProblemResponse
from api.request_log import request_id_of

LARGEST_BODY = 32 << 20
"""Bytes; a batch of a thousand jobs has room."""


class BodyLimit:
    """ASGI middleware that answers 413 to a longer body.

    Args:
        uploads: the path that takes files.
        largest_upload: bytes that it takes.
    """

    def __init__(self, app: ASGIApp, uploads: str, largest_upload: int) -> None:
        self._app = app
        self._most = {uploads: largest_upload}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._most.get(scope["path"], LARGEST_BODY)
        told = (
            f"a body may have {most} bytes here; send a shorter one, or, for an uploaded text, "
            "have the operator allow more (BONSAI_LARGEST_DATASET)"
        )
        if int(Headers(scope=scope).get("content-length", "0")) > most:
            refusal = ProblemResponse(CONTENT_TOO_LARGE, told, request_id=request_id_of(scope))
            await refusal(scope, receive, send)
            return
        came = 0

        async def bounded() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > most:
                # Whoever reads it passes this on to the handlers of problems.
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, told)
            return message

        await self._app(scope, bounded, send)
