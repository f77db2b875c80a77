"""The port that the API is to listen on."""

import errno
import socket

from client.embedded.errors import EmbeddedStackError

WILDCARD_ADDRESSES = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def require_free_port(host: str, port: int) -> None:
    """Asked before anything is started."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the API binds: a connection that was just closed does not hold the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise EmbeddedStackError(
                f"Port {port} on {host} is taken by another program. Stop that program, "
                "or choose another port with --port."
            ) from error
        raise EmbeddedStackError(
            f"Cannot listen on port {port} of {host} ({error.strerror or error}). "
            "Choose another --port (1024 to 65535) or another --host."
        ) from error


def reachable_address(host: str) -> str:
    """How a client on this machine writes the address."""
    address = WILDCARD_ADDRESSES.get(host, host)
    return f"[{address}]" if ":" in address else address
