"""Refuses peers on other machines, unless the operator allows them: where no key was made, reaching
the service is owning it.

A page in a browser on this machine is a peer on this machine. Its requests give the name of the
site it came from, also where that name was made to point here, so foreign names are refused too: as
the host that is asked, and as the origin of what may change something.
"""

from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import REMOTE_PEER, ProblemResponse
from api.request_log import request_id_of

# What Starlette's test client calls itself and its server; no socket has a peer of this name.
_TEST_CLIENT = "testclient"
_SAFE = {"GET", "HEAD", "OPTIONS"}
_LOCAL_NAMES = {"", "localhost", "testserver"}


class LoopbackOnly:
    """ASGI middleware that answers 403 to every peer that is not on this machine."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        peer = scope["client"][0] if scope.get("client") else None
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), _origin(scope["method"], headers)
        if is_local(peer) and is_local_name(host) and is_local_name(origin):
            await self._app(scope, receive, send)
            return
        asked = host if is_local_name(origin) else f"{host} by a page of {origin}"
        problem = ProblemResponse(
            REMOTE_PEER,
            f"the request came from {peer} for the host {asked!r}, and only this machine is "
            "served, by its own names (localhost, 127.0.0.1, ::1); use an SSH tunnel, or have the "
            "operator set BONSAI_ALLOW_REMOTE=true, with keys",
            request_id=request_id_of(scope),
        )
        await problem(scope, receive, send)


def _origin(method: str, headers: Headers) -> str:
    """The host of the page that sends a request which may change something, if it is a page's."""
    origin = "" if method in _SAFE else headers.get("origin", "")
    return origin.partition("://")[2] or origin


def is_local(peer: str | None) -> bool:
    """Whether a peer is on this machine; a unix socket has none (None, or an empty name)."""
    if not peer or peer == _TEST_CLIENT:
        return True
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback


def is_local_name(host: str) -> bool:
    """Whether a Host header, with or without a port, names this machine."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name in _LOCAL_NAMES or (name != _TEST_CLIENT and is_local(name))
