"""Gives each request an id, writes one line about it, and answers when all else has failed."""

import re
import time
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import INTERNAL_ERROR, ProblemResponse

HEADER = "X-Request-ID"
_TOKEN = re.compile(r"[A-Za-z0-9._-]{1,128}")

_log = structlog.get_logger(__name__)


def request_id_of(scope: Scope) -> str:
    """The id of the request that `RequestLog` put there."""
    return str(scope["state"]["request_id"])


class RequestLog:
    """ASGI middleware, outermost of ours; `request_id` is in every line logged below it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        offered = Headers(scope=scope).get(HEADER, "")
        request_id = offered if _TOKEN.fullmatch(offered) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._logged(scope, receive, send, request_id)

    async def _logged(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        status: int | None = None
        began = time.perf_counter()
        seconds: float | None = None

        async def tagged(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                seconds = time.perf_counter() - began

        try:
            await self._app(scope, receive, tagged)
        except Exception:
            _log.exception("request_failed")
            # Half a response cannot be taken back: the server cuts the connection instead.
            if status is not None:
                raise
            problem = ProblemResponse(
                INTERNAL_ERROR,
                "this is a fault of the service; its log has the reason under the request's id",
                request_id=request_id,
            )
            await problem(scope, receive, tagged)
        finally:
            _log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                # Until the last byte was sent; what runs after the response is not counted.
                seconds=None if seconds is None else round(seconds, 4),
                peer=scope["client"][0] if scope.get("client") else None,
                key_id=getattr(scope["state"].get("caller"), "key_id", None),
            )
