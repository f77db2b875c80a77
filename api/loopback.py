"""Refuses peers on other machines, unless the operator allows them: where no key was made, reaching
the service is owning it.

A page in a browser on this machine is a peer on this machine. Its requests give the name of the
site it came from, also where that name was made to point here, so foreign names are refused too.
"""

from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import REMOTE_PEER, ProblemResponse
from api.request_log import request_id_of

# What Starlette's test client calls itself and its server; no socket has a peer of this name.
_TEST_CLIENT = "testclient"
_LOCAL_NAMES = {"", "localhost", "testserver"}


class LoopbackOnly:
    """ASGI middleware that answers 403 to every peer that is not on this machine."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        peer = scope["client"][0] if scope.get("client") else None
        host = Headers(scope=scope).get("host", "") if scope["type"] == "http" else ""
        if scope["type"] != "http" or (is_local(peer) and is_local_name(host)):
            await self._app(scope, receive, send)
            return
        problem = ProblemResponse(
            REMOTE_PEER,
            f"the request came from {peer} for the host {host!r}, and only this machine is "
            "served, by its own names (localhost, 127.0.0.1, ::1); use an SSH tunnel, or have the "
            "operator set BONSAI_ALLOW_REMOTE=true, with keys",
            request_id=request_id_of(scope),
        )
        await problem(scope, receive, send)


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
