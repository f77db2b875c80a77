"""Gives each request an id and a span, measures it, writes one line about it, and answers when all
else has failed."""

import re
import time
from uuid import uuid4

import structlog
from prometheus_client import Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import INTERNAL_ERROR, ProblemResponse
from jobs.origin import Origin, coming_from
from jobs.traces import Span, Traces, trace_id_of, traced

HEADER = "X-Request-ID"
_METHODS = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}
_PROBED = {"/healthz", "/metrics", "/readyz"}
"""Asked so often, and by machines, that spans of it would hide the others."""

_TOKEN = re.compile(r"[A-Za-z0-9._-]{1,128}")

_log = structlog.get_logger(__name__)


def request_id_of(scope: Scope) -> str:
    """The id of the request that `RequestLog` put there."""
    return str(scope["state"]["request_id"])


class RequestLog:
    """ASGI middleware, outermost of ours; `request_id` is in every line logged below it.

    Args:
        app: what is inside.
        durations: gets how long each request took, in seconds, by method, route and status.
        traces: get a span of each request.
    """

    def __init__(self, app: ASGIApp, durations: Histogram, traces: Traces) -> None:
        self._app = app
        self._durations = durations
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        offered = headers.get(HEADER, "")
        request_id = offered if _TOKEN.fullmatch(offered) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        caller = headers.get("traceparent")
        caller = caller if trace_id_of(caller) else None
        with self._span(scope, request_id, caller) as span:
            origin = Origin(request_id, span.traceparent or caller)
            ids = {"request_id": request_id, **traced(origin.traceparent)}
            with coming_from(origin), structlog.contextvars.bound_contextvars(**ids):
                status = await self._logged(scope, receive, send, request_id)
            span.rename(f"{_method_of(scope)} {_route_of(scope)}")
            span.note({"http.route": _route_of(scope), "http.response.status_code": status or 0})
            span.end(str(status) if status is None or status >= 500 else None)

    def _span(self, scope: Scope, request_id: str, caller: str | None) -> Span:
        if scope["path"] in _PROBED:
            return Span()
        about = {
            "http.request.method": scope["method"],
            "url.path": scope["path"],
            "bonsai.request_id": request_id,
        }
        return self._traces.start(scope["method"], about, parent=caller, is_request=True)

    async def _logged(
        self, scope: Scope, receive: Receive, send: Send, request_id: str
    ) -> int | None:
        """Answer a request, and tell of it; the status it got."""
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
            labels = (_method_of(scope), _route_of(scope), _kind_of(status))
            self._durations.labels(*labels).observe(seconds or time.perf_counter() - began)
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
        return status


def _route_of(scope: Scope) -> str:
    """The template of the address, of which there are few."""
    return str(getattr(scope.get("route"), "path", "none"))


def _method_of(scope: Scope) -> str:
    """Clients may make methods up."""
    return scope["method"] if scope["method"] in _METHODS else "other"


def _kind_of(status: int | None) -> str:
    return "none" if status is None else f"{status // 100}xx"
